"""A menu of parts around a good mask: experts that have a trunk in common, to choose between.

Masks from all over the search space have little in common, and a meta-graph that is to be good at each of
them learns each of them slowly: an expert trains on its own images only. So most cells are the same in all
masks here, trained by every image, and in a few places there is a choice of modules. A few choices make many
networks, and each module trains on the images of all networks that it is in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from instanas_env.search_space import SearchSpace

Place = Sequence[tuple[int, int]]
"""(cell, module): those of which one runs."""


def parts_around(space: SearchSpace, mask: Tensor, places: Sequence[Place]) -> tuple[Tensor, list[int]]:
    """The parts of masks near ``mask``, for :class:`agents.arms.MenuArms`.

    In each place one of its modules runs, or what ``mask`` has in these cells; or nothing, if they may be
    empty. So cells of one shape make a choice between modules of one kind: 14:0 or 15:0 means two experts of
    which an image passes through one. All other cells, the trunk, are as in ``mask``.

    Args:
        space: of the masks.
        mask: repaired, bool ``(num_cells, num_modules)``.
        places: where there is a choice. A cell can be in one place only, and one that changes shape must be
            the only one in it.

    Returns:
        Parts, bool ``(K, num_cells, num_modules)``, and how many of them each place has. The first of each
        place is what ``mask`` has there.

    Raises:
        ValueError: no places, no such cell or module, or a cell in two places.
    """
    cells = [sorted({cell for cell, _ in place}) for place in places]
    if not places or not all(cells):
        raise ValueError(f"places: got {places}; at least one, with a module, will do")
    for cell, module in (pair for place in places for pair in place):
        if not (0 <= cell < space.num_cells and 0 <= module < space.num_modules):
            limits = f"cells in 0..{space.num_cells - 1}, modules in 0..{space.num_modules - 1}"
            raise ValueError(f"places: got {cell}:{module}; {limits} will do")
        if sum(cell in place for place in cells) > 1:
            raise ValueError(f"places: got cell {cell} in two of them; one will do")
    trunk = mask.clone()
    trunk[[cell for place in cells for cell in place]] = False
    groups = [_parts(space, mask, place, within) for place, within in zip(places, cells, strict=True)]
    groups[0] = [part | trunk for part in groups[0]]  # so that every mask has the trunk
    return torch.stack([part for group in groups for part in group]), [len(group) for group in groups]


def _parts(space: SearchSpace, mask: Tensor, place: Place, cells: Sequence[int]) -> list[Tensor]:
    """What may run in a place, each ``(num_cells, num_modules)`` and once."""
    nothing = torch.zeros_like(mask)
    as_it_is = nothing.clone()
    as_it_is[cells] = mask[cells]
    parts = [as_it_is]
    if all(space.cells[cell].keeps_shape for cell in cells):
        parts.append(nothing)
    for cell, module in place:
        alone = nothing.clone()
        alone[cell, module] = True
        parts.append(alone)
    return list({tuple(part.flatten().tolist()): part for part in parts}.values())
