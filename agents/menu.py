"""A menu of masks near a good one, each with weights of its own: candidates for experts, to choose between.

Masks from all over the search space have little in common, and a meta-graph that is to be good at each of
them learns each of them slowly. Near ones train the same modules in the early cells; and where they differ
they have more weights between them than any of them runs through, as a mixture of experts has.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from instanas_env.search_space import SearchSpace

DRAWS = 1000  # variations drawn for one that is new before giving up


def menu_around(
    space: SearchSpace,
    mask: Tensor,
    size: int,
    generator: torch.Generator,
    *,
    change: float = 0.5,
    resize: float = 0.15,
    shared: int = 0,
) -> Tensor:
    """``mask`` first, then ``size - 1`` different variations of it: bool ``(size, num_cells, num_modules)``.

    A variation is drawn behind the ``shared`` first cells in three steps, so that it takes about as long as
    ``mask``. Within a stage, the cells that keep their shape are exchanged. Then each cell that has modules
    gets, with probability ``change``, a single other one in their place. Then each cell that keeps its shape
    is, with probability ``resize``, emptied if it has modules, and given one if it has none.

    Args:
        space: of the masks.
        mask: repaired, bool ``(num_cells, num_modules)``.
        size: of the menu.
        generator: of the draws.
        change, resize: probabilities.
        shared: so many first cells are as in ``mask`` in all variations.

    Raises:
        ValueError: there are not so many variations, or not so many cells.
    """
    if not 0 <= shared <= space.num_cells:
        raise ValueError(f"shared: got {shared}; 0 to {space.num_cells}, the cells, will do")
    menu = [mask]
    seen = {tuple(mask.flatten().tolist())}
    for _ in range(DRAWS * size):
        if len(menu) == size:
            return torch.stack(menu)
        drawn = _variation(space, mask, generator, change, resize, shared)
        bits = tuple(drawn.flatten().tolist())
        if bits not in seen:
            seen.add(bits)
            menu.append(drawn)
    raise ValueError(f"size: got {size}, but only {len(menu)} variations were found; fewer will do")


def _variation(
    space: SearchSpace, mask: Tensor, generator: torch.Generator, change: float, resize: float, shared: int
) -> Tensor:
    varied = mask.clone()
    for stage in interchangeable(space):
        cells = torch.tensor([cell for cell in stage if cell >= shared], dtype=torch.long)
        varied[cells] = varied[cells[torch.randperm(len(cells), generator=generator)]]
    draws = torch.rand(2, space.num_cells, generator=generator)
    for number in range(shared, space.num_cells):
        chosen = varied[number].clone()
        if chosen.any() and draws[0, number] < change:
            varied[number] = _another(chosen, generator)
        if space.cells[number].keeps_shape and draws[1, number] < resize:
            varied[number] = False if chosen.any() else _another(chosen, generator)
    return varied


def _another(chosen: Tensor, generator: torch.Generator) -> Tensor:
    """A single module, bool ``(num_modules,)``, but not the one that is chosen alone."""
    free = [m for m in range(len(chosen)) if not (chosen[m] and chosen.sum() == 1)]
    alone = torch.zeros_like(chosen)
    alone[free[int(torch.randint(len(free), (), generator=generator))]] = True
    return alone


def interchangeable(space: SearchSpace) -> Iterator[list[int]]:
    """The cells of each stage that keep their shape: runs of cells with the same maps."""
    stage: list[int] = []
    for number, cell in enumerate(space.cells):
        if cell.keeps_shape:
            stage.append(number)
        elif stage:
            yield stage
            stage = []
    if stage:
        yield stage
