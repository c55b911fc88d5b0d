"""Which image got which network: what Figures 7 and 8 need beside results.json, in one small file.

Tensors only (safetensors), so that loading runs nothing. A policy's network is a position in the
"masks" of its row in results.json, which has the mask and the latency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from instanas_env import checks
from instanas_env.bandit import Outcome
from instanas_env.data import ImageSet
from instanas_env.storage import PathLike, load_weights, save_weights
from instanas_env.validation import items, record, text

_CONFIG = record({"classes": items(text()), "policies": items(text())}, more=True)

THUMBNAILS_PER_CLASS = 24
MAX_THUMBNAILS = 240
THUMBNAIL_SIZE = 32


@dataclass(frozen=True)
class Choices:
    """What a policy did with the N images of a split, in order.

    Attributes:
        network: int ``(N,)``, position in the row's "masks".
        correct: uint8 ``(N,)``.
    """

    network: Tensor
    correct: Tensor


@dataclass(frozen=True)
class ImageRecord:
    """A split and what each controller policy did with it.

    Attributes:
        label: int64 ``(N,)``.
        sample: int64 ``(S,)``, the images that have a thumbnail, ascending.
        thumbnails: uint8 ``(S, C, h, w)``; one channel where all images are grey.
        classes: the name of each label.
        policies: by name of the row.
    """

    label: Tensor
    sample: Tensor
    thumbnails: Tensor
    classes: tuple[str, ...]
    policies: Mapping[str, Choices]

    def save(self, path: PathLike) -> None:
        """Write the record: 3 bytes an image and policy, and the thumbnails."""
        whole = torch.int16 if len(self.label) <= torch.iinfo(torch.int16).max else torch.int32
        tensors = {
            "label": self.label.to(torch.int16),
            "sample": self.sample.to(torch.int32),
            "thumbnails": self.thumbnails,
        }
        for number, choices in enumerate(self.policies.values()):
            tensors[f"{number}.network"] = choices.network.to(whole)
            tensors[f"{number}.correct"] = choices.correct.to(torch.uint8)
        save_weights(path, tensors, {"classes": self.classes, "policies": list(self.policies)})

    @classmethod
    def load(cls, path: PathLike) -> ImageRecord:
        """Read a record; ``ValueError`` names a file that is none."""
        tensors, config = load_weights(path)
        with checks.explained(f"images: {path} is not a record of images", KeyError):
            config = _CONFIG(config, "config")
            return cls(
                label=tensors["label"].long(),
                sample=tensors["sample"].long(),
                thumbnails=tensors["thumbnails"],
                classes=tuple(config["classes"]),
                policies={
                    name: Choices(tensors[f"{number}.network"].long(), tensors[f"{number}.correct"])
                    for number, name in enumerate(config["policies"])
                },
            )


def make_record(image_set: ImageSet, policies: Mapping[str, Choices], seed: int) -> ImageRecord:
    """The record of a split, with thumbnails of so many images of each class as MAX_THUMBNAILS allows."""
    rng = np.random.default_rng(seed)
    labels = image_set.labels.unique().tolist()[:MAX_THUMBNAILS]
    count = min(THUMBNAILS_PER_CLASS, MAX_THUMBNAILS // len(labels))
    drawn = [rng.permutation((image_set.labels == label).nonzero().flatten())[:count] for label in labels]
    sample = torch.from_numpy(np.sort(np.concatenate(drawn)))
    pictures = image_set.images[sample]
    if pictures.shape[-1] > THUMBNAIL_SIZE:
        small = torch.nn.functional.interpolate(
            pictures.float(), size=(THUMBNAIL_SIZE, THUMBNAIL_SIZE), mode="area"
        )
        pictures = small.round().to(torch.uint8)
    if (pictures == pictures[:, :1]).all():
        pictures = pictures[:, :1]
    return ImageRecord(image_set.labels, sample, pictures, image_set.classes, policies)


def choices(outcome: Outcome) -> Choices:
    """What a policy did, from what it earned; positions are those in its row's "masks"."""
    _, network, _ = distinct(outcome)
    return Choices(torch.from_numpy(network), torch.from_numpy(outcome.correct).to(torch.uint8))


def distinct(outcome: Outcome) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A policy's networks, bool ``(n, num_bits)``; which of them each image got; an image of each."""
    masks = outcome.mask.reshape(len(outcome.mask), -1)
    networks, first, position = np.unique(masks, axis=0, return_index=True, return_inverse=True)
    return networks, position.ravel(), first
