"""Drop-path for pre-training the meta-graph (section 3.2): how much is dropped when, and the draw."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from instanas_env import paper
from instanas_env.search_space import SearchSpace

Schedule = Literal["paper", "spread"]


def drop_rate(progress: float, schedule: Schedule = "paper") -> float:
    """The drop-path rate at ``progress`` in [0, 1] of pre-training.

    "paper": 0 until the middle, then linear to 50 % (section 3.2). "spread": linear from 0 to 0.9 over
    the first 60 %, and an upper limit, see :func:`keep_rates`.
    """
    _check(schedule)
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
    _check(schedule)
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

    ``per_image=False`` draws one child network for the batch, the paper's wording. BatchNorm then sees
    one network at a time and is judged on the average of all: sub-networks stay at chance level. Masks
    of each image keep the statistics consistent.
    """
    draws = count if per_image else 1
    keep = keep_rates(draws, drop_rate(progress, schedule), schedule, generator)
    return space.random_masks(draws, keep, generator).expand(count, -1, -1)


def _check(schedule: str) -> None:
    if schedule not in get_args(Schedule):
        raise ValueError(f"schedule: unknown {schedule!r}; choose from {', '.join(get_args(Schedule))}")
