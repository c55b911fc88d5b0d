"""Images that get little and images that get much, as the environment renders them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from instanas_env.bandit import Contexts, InstanceBandit, Outcome
from instanas_env.render import frames
from instanas_env.storage import write_atomic
from scripts.report.pictures import png_of


def easy_and_hard(bandit: InstanceBandit, outcome: Outcome, path: Path) -> list[str]:
    """Write a picture of three images that got least and three that got most; a line about each.

    Args:
        bandit: of the split.
        outcome: of a policy on all its images.
        path: of the PNG; beside it goes a GIF that shows one after the other, 1.5 s each.
    """
    order = np.argsort(outcome.latency_ms, kind="stable")
    chosen = torch.from_numpy(np.concatenate([order[:3], order[-3:]]).copy())
    contexts = Contexts(chosen, bandit.image_set.images[chosen])
    masks = outcome.mask[chosen.numpy()].reshape(len(chosen), -1)
    pictures = frames(bandit, contexts, bandit.score(contexts, masks))
    write_atomic(path, png_of(np.concatenate(pictures)))
    moving = BytesIO()
    first, *others = map(Image.fromarray, pictures)
    first.save(moving, "GIF", save_all=True, append_images=others, duration=1500, loop=0)
    write_atomic(path.with_suffix(".gif"), moving.getvalue())
    classes, lines = bandit.image_set.classes, []
    for i in chosen.tolist():
        modules, name = int(outcome.mask[i].sum()), classes[outcome.label[i]]
        answer = "right" if outcome.correct[i] else f"wrong, {classes[outcome.prediction[i]]}"
        lines.append(f"  {name:12s} {modules:2d} modules  {outcome.latency_ms[i]:.3f} ms  {answer}")
    return lines
