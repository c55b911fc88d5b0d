"""Random crop, horizontal flip and cut-out (section 4.2), a draw for each image, on whole batches.

torchvision's transforms draw one crop for a batch, or cost five times as much image by image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from instanas_env import checks, paper


@dataclass(frozen=True)
class Augmentation:
    """What to do to training images; sizes are fractions of the image's side, 0 turns one off."""

    crop_padding: float = paper.CROP_PADDING
    flip: bool = True
    cutout: float = paper.CUTOUT_SIZE

    def __post_init__(self) -> None:
        checks.number("crop_padding", self.crop_padding, 0, 1)
        checks.flag("flip", self.flip)
        checks.number("cutout", self.cutout, 0, 1)


LIGHT = Augmentation(crop_padding=2 / 32, cutout=0.0)
"""For runs of a few epochs, which do not overfit: small crops and flips alone."""

DRAWS_PER_IMAGE = 5


def augment(images: Tensor, settings: Augmentation, uniforms: Tensor) -> Tensor:
    """Augmented copies of ``images``.

    Args:
        images: ``(B, 3, H, W)`` of any type; H = W. What a crop or cut-out leaves open becomes 0.
        settings: which transformations.
        uniforms: ``(B, DRAWS_PER_IMAGE)`` in [0, 1), all the chance there is: an image is augmented
            alike alone and in a batch.

    Returns:
        A new tensor of the same shape and type, channels_last.
    """
    count, _, side, _ = images.shape
    shift_y, shift_x, flip, hole_y, hole_x = uniforms.unsqueeze(2).unbind(1)
    pad = round(settings.crop_padding * side)
    line = torch.arange(side)
    rows = line + (shift_y * (2 * pad + 1)).long()
    flipped = (flip < 0.5) & settings.flip
    columns = torch.where(flipped, line.flip(0), line) + (shift_x * (2 * pad + 1)).long()

    padded = F.pad(images, (pad,) * 4).permute(0, 2, 3, 1)
    batch = torch.arange(count).reshape(-1, 1, 1)
    out = padded[batch, rows.unsqueeze(2), columns.unsqueeze(1)]

    hole = round(settings.cutout * side)
    if hole:
        top, left = ((centre * side).long() - hole // 2 for centre in (hole_y, hole_x))
        covered_rows = (line >= top) & (line < top + hole)
        covered_columns = (line >= left) & (line < left + hole)
        out[covered_rows.unsqueeze(2) & covered_columns.unsqueeze(1)] = 0
    return out.permute(0, 3, 1, 2)
