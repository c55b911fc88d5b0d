"""Tables of answers by hand and by chance, which need no network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from instanas_env.data import ImageSet, load_images
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.tabulated import Tabulated, pack

SPACE = SearchSpace.preset("lite")


def table_of(correct: Tensor, images: ImageSet, latency_ms: Tensor | None = None) -> Tabulated:
    """A table of the split "val" with these answers, bool ``(N, K)``; 1, 2, 3... ms unless given."""
    count = correct.shape[1]
    keep = torch.linspace(0, 1, count)
    latency_ms = torch.arange(1, count + 1).double() if latency_ms is None else latency_ms
    return Tabulated(
        space=SPACE,
        masks=SPACE.random_masks(count, keep, generator_for(0)),
        latency_ms=latency_ms,
        packed={"val": pack(correct)},
        images={"val": images.fingerprint},
        dataset="embedded",
        references={"cheapest": 1.0, "mobilenet_v2": 2.0, "full": float(count)},
        meta_graph="0" * 32,
        latency_table="0" * 32,
    )


def validation_images() -> ImageSet:
    """The 1,000 that are embedded."""
    return load_images(split="val")


def drawn_table(count: int = 11, seed: int = 0) -> Tabulated:
    """Random answers for the embedded validation images; mask k is right in (k + 1) / (count + 1) of them."""
    images = validation_images()
    rate = np.arange(1, count + 1) / (count + 1)
    correct = np.random.default_rng(seed).random((len(images), count)) < rate
    return table_of(torch.from_numpy(correct), images)


def four_images() -> tuple[Tabulated, ImageSet]:
    """Two classes of two images, three masks; which answers are right is written out."""
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator_for(1))
    image_set = ImageSet(images, torch.tensor([0, 0, 1, 1]), ("a", "b"), (0.5,) * 3, (0.5,) * 3)
    correct = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 0, 1], [0, 0, 1]]).bool()
    return table_of(correct, image_set), image_set
