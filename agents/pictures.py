"""What a classifier takes for images: tensors, arrays, PIL's images, and files."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from instanas_env import arrays, checks
from instanas_env.data.decoding import decode, square

FORMS = "an array or tensor (3, {side}, {side}) or (B, 3, {side}, {side}), a PIL image or a path"


def as_batch(images: Any, side: int) -> tuple[Tensor, bool]:
    """Images uint8 ``(B, 3, side, side)`` on the CPU, and whether it was a single one.

    Args:
        images: an array or tensor as :func:`instanas_env.arrays.images` takes it; or a PIL image or the path
            of one, which is read as those of an image folder are, see
            :func:`instanas_env.data.decoding.square`.
        side: of the square, px.

    Raises:
        ValueError: another type or shape, an empty batch, or a damaged file.
        FileNotFoundError: no such file.
    """
    will_do = FORMS.format(side=side)
    if isinstance(images, (str, os.PathLike)):
        return _as_tensor(decode(checks.file("images", images), side, "images")[0]), True
    if isinstance(images, Image.Image):
        try:
            return _as_tensor(square(images, side)[0]), True
        except Exception as error:  # Pillow reads a file late, and raises what it likes
            raise ValueError(f"images: no whole picture ({error}); {will_do} will do") from error
    if not isinstance(images, (Tensor, np.ndarray, list, tuple)):
        raise checks.refuse("images", checks.Shown(type(images).__name__), will_do)
    batch, several = arrays.images("images", images, side)
    if not len(batch):
        raise checks.refuse("images", checks.Shown("an empty batch"), will_do)
    return batch, not several


def _as_tensor(pixels: np.ndarray) -> Tensor:
    """``(side, side, 3)`` as a batch of one."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].contiguous()
