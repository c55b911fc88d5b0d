"""A split of a labelled data set: uint8 images, NCHW, with the statistics that normalise them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from instanas_env import checks

Channels = tuple[float, float, float]
"""A number for each colour channel, in units of 0..1."""
CHUNK = 1024  # images hashed at a time


class ImageStore(Protocol):
    """What holds the images: a tensor, or files that are decoded when asked for."""

    def __getitem__(self, index: Any, /) -> Tensor:
        """uint8 ``(n, 3, H, W)`` of the images at ``index`` ``(n,)``; ``(3, H, W)`` of one at a number."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class DataRecord:
    """What a classifier must know of the images that it was trained on.

    Attributes:
        classes: the name of each label.
        mean, std: of each colour channel, in units of 0..1.
        typical: masks that images got, bool ``(K, num_cells, num_modules)``, by which an exported file is
            arranged; None if they were not recorded.
    """

    classes: tuple[str, ...]
    mean: Channels
    std: Channels
    typical: Tensor | None = None

    def __post_init__(self) -> None:
        for name, above in (("mean", False), ("std", True)):
            values = getattr(self, name)
            if len(values) != 3:
                raise checks.refuse(name, values, "three numbers, one for each channel,")
            for value in values:
                checks.number(name, value, 0, above=above)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 ``(B, 3, H, W)`` to float: zero mean, unit variance in each channel."""
        both = (self.mean, self.std)
        shift, scale = (255 * torch.tensor(rgb, device=images.device).view(-1, 1, 1) for rgb in both)
        return images.float().sub_(shift).div_(scale)


@dataclass(frozen=True)
class ImageSet:
    """Images and their labels.

    Attributes:
        images: uint8 ``(N, 3, H, W)``, or anything that gives such a tensor when indexed.
        labels: int64 ``(N,)``.
        classes: the name of each label.
        mean, std: of each colour channel, in units of 0..1, over the training images.
    """

    images: ImageStore
    labels: Tensor
    classes: tuple[str, ...]
    mean: Channels
    std: Channels

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change with a class's name, a label, or a byte of an image.

        For images that are decoded on demand (ImageNet) the files' names and sizes stand for their bytes.
        Computed once: whoever writes into the tensors afterwards makes a set of his own.
        """
        images: Any = self.images
        digest = hashlib.sha256(json.dumps([list(self.classes), self.labels.tolist()]).encode())
        for part in _pixels(images) if isinstance(images, Tensor) else images.content():
            digest.update(part)
        return digest.hexdigest()[:32]

    def take(self, index: Tensor) -> ImageSet:
        """The images at ``index`` ``(n,)``, in that order, as a set of their own."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    @property
    def record(self) -> DataRecord:
        """What is to be known of its images besides them."""
        return DataRecord(self.classes, self.mean, self.std)

    def normalize(self, images: Tensor) -> Tensor:
        """As :meth:`DataRecord.normalize`."""
        return self.record.normalize(images)


def _pixels(images: Tensor) -> Iterator[bytes]:
    """The shape and the bytes of uint8 ``(N, 3, H, W)``, whatever its strides."""
    yield json.dumps(list(images.shape)).encode()
    for start in range(0, len(images), CHUNK):
        yield images[start : start + CHUNK].to("cpu", torch.uint8).contiguous().numpy().tobytes()


def split_by_class(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of all but a ``fraction`` of every class, and of that fraction; the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    kept, cut = [], []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        size = round(fraction * len(members))
        cut.append(members[:size])
        kept.append(members[size:])
    return torch.cat(kept).sort().values, torch.cat(cut).sort().values
