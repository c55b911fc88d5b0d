"""A menu of parts around a good mask: experts that have a trunk in common, to choose between.

Masks from all over the search space have little in common, and a meta-graph that is to be good at each of
them learns each of them slowly: an expert trains on its own images only. So the early cells are the same in
all masks here, trained by every image, and in each later place there are a few parts to choose from. A few
parts make many networks, and each part trains on the images of all networks that it is in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from instanas_env.search_space import SearchSpace


def parts_around(
    space: SearchSpace, mask: Tensor, *, shared: int, modules: Sequence[int]
) -> tuple[Tensor, list[int]]:
    """The parts of masks near ``mask``, for :class:`agents.arms.MenuArms`.

    Behind the ``shared`` first cells, each cell that changes shape is a place where one of its modules runs,
    and so is each run of cells of one shape: there one module runs in one of the cells, or none at all.

    Args:
        space: of the masks.
        mask: repaired, bool ``(num_cells, num_modules)``. In each place what it has is the first part.
        shared: so many first cells are as in ``mask`` in all masks.
        modules: those that a part may have; more of them than ``mask`` has there.

    Returns:
        Parts, bool ``(K, num_cells, num_modules)``, and how many of them each place has.

    Raises:
        ValueError: there are not so many cells, no such module, or nothing to choose between.
    """
    if not 0 <= shared <= space.num_cells:
        raise ValueError(f"shared: got {shared}; 0 to {space.num_cells}, the cells, will do")
    if not all(0 <= module < space.num_modules for module in modules):
        raise ValueError(f"modules: got {tuple(modules)}; numbers in 0..{space.num_modules - 1} will do")
    trunk, groups = mask.clone(), []
    for place in places(space, shared):
        parts = _parts(space, mask, place, modules)
        if len(parts) > 1:
            groups.append(parts)
            trunk[place] = False
    if not groups:
        raise ValueError(f"shared, modules: got {shared}, {tuple(modules)}, which leave nothing to choose")
    groups[0] = [part | trunk for part in groups[0]]  # so that every mask has the trunk
    return torch.stack([part for group in groups for part in group]), [len(group) for group in groups]


def places(space: SearchSpace, shared: int) -> Iterator[list[int]]:
    """The cells behind the ``shared`` first ones, those of one shape in a row together."""
    place: list[int] = []
    for number in range(shared, space.num_cells):
        if space.cells[number].keeps_shape:
            place.append(number)
            continue
        if place:
            yield place
        yield [number]
        place = []
    if place:
        yield place


def _parts(space: SearchSpace, mask: Tensor, place: list[int], modules: Sequence[int]) -> list[Tensor]:
    """What may run in a place, each ``(num_cells, num_modules)``: what ``mask`` has there comes first."""
    as_it_is = torch.zeros_like(mask)
    as_it_is[place] = mask[place]
    parts = [as_it_is]
    if space.cells[place[0]].keeps_shape:
        parts.append(torch.zeros_like(mask))
    for cell in place:
        for module in modules:
            alone = torch.zeros_like(mask)
            alone[cell, module] = True
            parts.append(alone)
    unique: dict[tuple[bool, ...], Tensor] = {tuple(part.flatten().tolist()): part for part in parts}
    return list(unique.values())
