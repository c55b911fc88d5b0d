"""What tells one image set from another: names of classes, labels and bytes, in 32 hexadecimal digits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

CHUNK = 1024  # images hashed at a time


def fingerprint(content: Iterator[bytes], labels: Tensor, classes: Sequence[str]) -> str:
    """A hash of all three, the same on every machine.

    Args:
        content: the images, in parts.
        labels: ``(N,)``.
        classes: the name of each label.
    """
    digest = hashlib.sha256(json.dumps([list(classes), labels.tolist()]).encode())
    for part in content:
        digest.update(part)
    return digest.hexdigest()[:32]


def pixels(images: Tensor) -> Iterator[bytes]:
    """The shape and the bytes of uint8 ``(N, 3, H, W)``, whatever its strides."""
    yield json.dumps(list(images.shape)).encode()
    for start in range(0, len(images), CHUNK):
        yield images[start : start + CHUNK].to("cpu", torch.uint8).contiguous().numpy().tobytes()
