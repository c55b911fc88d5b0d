"""A menu of masks near a good one: variations that share most of its modules, to choose between.

Masks from all over the search space have little in common, and a meta-graph that is to be good at each of
them learns each of them slowly. Near ones train the same modules nearly all the time; and where they differ
they have more weights between them than any of them runs through, as a mixture of experts has.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instanas_env.latency import LatencyTable
from instanas_env.search_space import SearchSpace

DRAWS = 1000  # variations drawn for one that is new before giving up


def menu_around(
    mask: Tensor, table: LatencyTable, size: int, change: float, generator: torch.Generator
) -> Tensor:
    """``mask`` first, then ``size - 1`` different variations of it: bool ``(size, num_cells, num_modules)``.

    Each cell has one alternative: its fastest module where it is empty, nothing where it may be empty, else
    another single module. A variation takes it in each cell with probability ``change``.

    Args:
        mask: repaired, bool ``(num_cells, num_modules)``.
        table: tells which module is the fastest, and the search space.
        size: of the menu.
        change: probability of the alternative.
        generator: of the draws.

    Raises:
        ValueError: there are not so many variations.
    """
    other = alternative(mask, table, generator)
    menu = [mask]
    seen = {tuple(mask.flatten().tolist())}
    for _ in range(DRAWS * size):
        if len(menu) == size:
            return torch.stack(menu)
        takes = torch.rand(len(mask), 1, generator=generator) < change
        drawn = torch.where(takes, other, mask)
        bits = tuple(drawn.flatten().tolist())
        if bits not in seen:
            seen.add(bits)
            menu.append(drawn)
    raise ValueError(f"size: got {size}, but only {len(menu)} variations were found; fewer will do")


def alternative(mask: Tensor, table: LatencyTable, generator: torch.Generator) -> Tensor:
    """What a variation has in each cell in place of what ``mask`` has there, of the same shape."""
    space: SearchSpace = table.space
    other = torch.zeros_like(mask)
    for number, (cell, chosen) in enumerate(zip(space.cells, mask, strict=True)):
        if not chosen.any():
            other[number, table.modules[number].argmin()] = True
        elif not cell.keeps_shape:
            alone = chosen.sum() == 1
            free = [m for m in range(space.num_modules) if not (alone and chosen[m])]
            other[number, free[int(torch.randint(len(free), (), generator=generator))]] = True
    return other
