"""The preset for a folder of one's own (docs/images.md), however many images and classes there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from instanas_env.build import parse_search_space
from instanas_env.data import SPLITS, load_images
from scripts.experiment.presets import Preset

STEPS = 2_000
"""Of training from new weights in the preset "folder"; a search and fine-tuning take fewer."""


def as_found(preset: Preset, data_dir: Path | None) -> Preset:
    """A preset that knows neither images nor classes, with those of its folder.

    Epochs and batches follow the number of images: about :data:`STEPS` steps, 4 to 60 epochs, batches of a
    twentieth of the images, 16 to 128.
    """
    if preset.classes:
        return preset
    space = parse_search_space(preset.search_space)
    sets = [load_images(preset.dataset, split, data_dir, space.resolution) for split in SPLITS]
    train = len(sets[0])
    batch = min(128, max(16, train // 20))
    epochs = min(60, max(4, STEPS * batch // train))
    shorter = max(3, epochs // 4)
    return replace(
        preset,
        classes=len(sets[0].classes),
        images=(train, len(sets[1]), len(sets[2])),
        pretrain=replace(preset.pretrain, epochs=epochs, batch_size=batch),
        mobilenet_v2=replace(preset.mobilenet_v2, epochs=epochs, batch_size=batch),
        reinforce=replace(preset.reinforce, epochs=shorter, num_envs=min(256, batch)),
        finetune=replace(preset.finetune, epochs=shorter, batch_size=batch),
    )
