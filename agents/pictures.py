"""What a classifier takes for images: tensors, arrays, PIL's images, and files."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


def as_batch(images: Any, side: int) -> tuple[Tensor, bool]:
    """Images uint8 ``(B, 3, side, side)`` on the CPU, and whether it was a single one.

    Args:
        images: uint8 tensor or array ``(3, side, side)`` or ``(B, 3, side, side)``; or a PIL image or the
            path of one, which is converted to RGB, resized and cropped to the middle square.
        side: of the square, px.

    Raises:
        ValueError: another type or shape, or an empty batch.
        FileNotFoundError: no such file.
    """
    if isinstance(images, (str, os.PathLike)):
        with Image.open(images) as image:
            return as_batch(image, side)
    if isinstance(images, Image.Image):
        square = ImageOps.fit(images.convert("RGB"), (side, side), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].contiguous(), True
    will_do = f"a uint8 tensor or array (3, {side}, {side}) or (B, 3, {side}, {side}), a PIL image or a path"
    if not isinstance(images, (Tensor, np.ndarray)):
        raise ValueError(f"images: got {type(images).__name__}; {will_do} will do")
    shape = tuple(images.shape)
    uint8 = images.dtype in (torch.uint8, np.dtype(np.uint8))
    if not uint8 or len(shape) not in (3, 4) or shape[-3:] != (3, side, side) or shape[0] == 0:
        raise ValueError(f"images: got {images.dtype} {shape}; {will_do} will do")
    batch = images.cpu() if isinstance(images, Tensor) else torch.from_numpy(images.copy())
    return (batch, False) if batch.ndim == 4 else (batch.unsqueeze(0), True)
