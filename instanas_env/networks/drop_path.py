"""Drop-path for pre-training the meta-graph (section 3.2): how much is dropped when, and the draw."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from instanas_env import checks, paper
from instanas_env.search_space import MOBILENET_V2_BLOCK, SearchSpace

Schedule = Literal["paper", "spread", "sandwich"]
FEW_MASKS = 4
"""With fewer, a batch of the sandwich cannot have all kinds of masks."""


def drop_rate(progress: float, schedule: Schedule = "paper") -> float:
    """The drop-path rate at ``progress`` in [0, 1] of pre-training.

    "paper": 0 until the middle, then linear to 50 % (section 3.2). "spread": linear from 0 to 0.9 over
    the first 60 %, and an upper limit, see :func:`keep_rates`.
    """
    checks.choice("schedule", schedule, get_args(Schedule))
    if schedule == "paper":
        start, end, final = paper.DROP_PATH_START, 1.0, paper.DROP_PATH_FINAL
    else:
        start, end, final = paper.SPREAD_START, paper.SPREAD_END, paper.SPREAD_FINAL
    return final * min(1.0, max(0.0, (progress - start) / (end - start)))


def keep_rates(count: int, rate: float, schedule: Schedule, generator: torch.Generator) -> Tensor:
    """The probability ``(count,)`` with which each image's modules stay on.

    "paper": 1 - rate for all. "spread": U(1 - rate, 1), so that the images of one batch train sparse
    and dense networks side by side.
    """
    checks.choice("schedule", schedule, get_args(Schedule))
    if schedule == "paper":
        return torch.full((count,), 1.0 - rate)
    return 1.0 - rate * torch.rand(count, generator=generator)


def drop_path_masks(
    space: SearchSpace,
    count: int,
    progress: float,
    generator: torch.Generator,
    schedule: Schedule = "paper",
    per_image: bool = True,
) -> Tensor:
    """Repaired masks ``(count, num_cells, num_modules)`` for one training batch.

    In "sandwich" four images in a row share a mask, so that the images of a module come in few numbers, for
    each of which oneDNN compiles kernels.

    ``per_image=False`` draws one child network for the batch, the paper's wording. BatchNorm then sees
    one network at a time and is judged on the average of all: sub-networks stay at chance level. Masks
    of each image keep the statistics consistent.
    """
    draws = count if per_image else 1
    if schedule == "sandwich":
        masks = sandwich_masks(space, -(-draws // paper.SANDWICH_GROUP), progress, generator)
        return masks.repeat_interleave(paper.SANDWICH_GROUP, 0)[:draws].expand(count, -1, -1)
    keep = keep_rates(draws, drop_rate(progress, schedule), schedule, generator)
    return space.random_masks(draws, keep, generator).expand(count, -1, -1)


def sandwich_masks(space: SearchSpace, count: int, progress: float, generator: torch.Generator) -> Tensor:
    """Masks from the largest network to the smallest in one batch (the sandwich rule of slimmable networks).

    A quarter of them has all modules, three eighths have one random module a cell, with up to 60 % of the
    cells that may be empty left empty, and the rest are random masks of densities up to 1/2. A cell that must
    not be empty gets a random module, so that the smallest networks are trained whatever their modules. At
    first, until ``progress`` reaches 0.2, ever fewer cells have MobileNetV2's module alone: sparse networks
    of untrained modules learn nothing.

    Returns:
        bool ``(count, num_cells, num_modules)``, repaired.
    """

    def one_random_module() -> Tensor:
        chosen = torch.randint(space.num_modules, (count, space.num_cells), generator=generator)
        return F.one_hot(chosen, space.num_modules).bool()

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    # Few masks are of kinds drawn at random, so that over many batches all kinds come.
    offset = 0.5 if count >= FEW_MASKS else torch.rand(1, generator=generator)
    kind = ((torch.arange(count) + offset) / count).view(-1, 1, 1)
    empty = uniform(count, space.num_cells, 1) < paper.SANDWICH_EMPTY * uniform(count, 1, 1)
    paths = one_random_module() & ~empty
    dense = uniform(count, *space.mask_shape) < 0.5 * uniform(count, 1, 1)
    masks = torch.where(kind < paper.SANDWICH_PATHS, paths, dense)
    masks |= one_random_module() & (space.needs_module & ~masks.any(-1)).unsqueeze(-1)
    untouched = uniform(count, space.num_cells, 1) >= progress / paper.SANDWICH_RAMP
    if MOBILENET_V2_BLOCK in space.modules:
        masks = torch.where(untouched, space.mobilenet_v2_mask(), masks)
    return masks | (kind >= 1 - paper.SANDWICH_FULL)
