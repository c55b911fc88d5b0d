"""Random crop, horizontal flip and cut-out (section 4.2), a draw for each image, on whole batches.

torchvision's transforms draw one crop for a batch, or cost five times as much image by image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from instanas_env import paper


@dataclass(frozen=True)
class Augmentation:
    """What to do to training images; sizes are fractions of the image's side, 0 turns one off."""

    crop_padding: float = paper.CROP_PADDING
    flip: bool = True
    cutout: float = paper.CUTOUT_SIZE


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Augmented copies of ``images``.

    Args:
        images: ``(B, 3, H, W)`` of any type; H = W. What a crop or cut-out leaves open becomes 0.
        settings: which transformations.
        generator: a CPU generator.

    Returns:
        A new tensor of the same shape and type, channels_last.
    """
    count, _, side, _ = images.shape
    pad = round(settings.crop_padding * side)
    shifts = torch.randint(2 * pad + 1, (2, count, 1), generator=generator)
    flipped = torch.rand(count, 1, generator=generator) < 0.5
    line = torch.arange(side)
    rows = line + shifts[0]
    columns = torch.where(flipped & settings.flip, line.flip(0), line) + shifts[1]

    padded = F.pad(images, (pad,) * 4).permute(0, 2, 3, 1)
    batch = torch.arange(count).reshape(-1, 1, 1)
    out = padded[batch, rows.unsqueeze(2), columns.unsqueeze(1)]

    hole = round(settings.cutout * side)
    if hole:
        corner = torch.randint(side, (2, count, 1), generator=generator) - hole // 2
        inside = (line >= corner) & (line < corner + hole)
        out[inside[0].unsqueeze(2) & inside[1].unsqueeze(1)] = 0
    return out.permute(0, 3, 1, 2)
