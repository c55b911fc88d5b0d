"""What a learner chooses between: every module on its own, whole masks off a menu, or parts of masks.

A choice is always a bool vector with one entry for each output of a controller (the modules that are on, or
what is taken off the menu), and its latency is the sum of its entries' latencies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from instanas_env.search_space import SearchSpace


class Arms(ABC):
    """A way to choose masks; ``count`` is the length of a choice."""

    count: int

    @abstractmethod
    def latencies(self, modules: Tensor) -> Tensor:
        """ms of each entry ``(count,)``, given those of the modules ``(num_cells, num_modules)``."""

    @abstractmethod
    def best(self, surplus: Tensor) -> Tensor:
        """The choice of the largest total surplus, ``(B, count)`` to bool ``(B, count)``."""

    @abstractmethod
    def random(self, count: int, generator: torch.Generator) -> Tensor:
        """Choices to learn from, bool ``(count, self.count)``."""

    @abstractmethod
    def explore(self, choices: Tensor, flip: float, generator: torch.Generator) -> Tensor:
        """Choices near ``(B, count)`` ones; ``flip`` is the probability of another entry."""

    @abstractmethod
    def masks(self, choices: Tensor) -> Tensor:
        """Repaired masks ``(B, num_cells, num_modules)`` of choices ``(B, count)``."""

    def certain(self) -> tuple[list[int], list[int]]:
        """The bits that all masks have, and those that none has."""
        return [], []


class ModuleArms(Arms):
    """Switches each module by itself; a cell that must not stay empty keeps its best one."""

    def __init__(self, space: SearchSpace):
        self.space = space
        self.count = space.num_bits
        self.needed = torch.tensor([[not cell.keeps_shape] for cell in space.cells])

    def latencies(self, modules: Tensor) -> Tensor:
        return modules.flatten()

    def best(self, surplus: Tensor) -> Tensor:
        cells = surplus.view(-1, self.space.num_cells, self.space.num_modules)
        best = F.one_hot(cells.argmax(2), self.space.num_modules).bool()
        return ((cells > 0) | (best & self.needed)).flatten(1)

    def random(self, count: int, generator: torch.Generator) -> Tensor:
        keep = torch.rand(count, generator=generator)  # every density
        return self.space.random_masks(count, keep, generator).flatten(1)

    def explore(self, choices: Tensor, flip: float, generator: torch.Generator) -> Tensor:
        flipped = choices ^ (torch.rand(choices.shape, generator=generator) < flip)
        return self.space.repair(self.masks(flipped)).flatten(1)

    def masks(self, choices: Tensor) -> Tensor:
        return choices.view(-1, self.space.num_cells, self.space.num_modules)


class MenuArms(Arms):
    """Takes one part of each group off a menu; a mask is the union of the parts taken.

    In a menu of one group the parts are whole masks. With more of them, such as one for each of some cells,
    a few parts stand for many masks: the product of the groups' sizes.

    Args:
        space: the search space.
        menu: the parts, ``(K, bits)`` or ``(K, num_cells, num_modules)``, those of a group together.
        groups: how many parts each group has, in order; None means a single group.

    Raises:
        ValueError: it is none; two groups share a module, whose latency would count twice; or a cell that
            changes shape can stay empty.
    """

    def __init__(
        self,
        space: SearchSpace,
        menu: Tensor | Sequence[Sequence[int]],
        groups: Sequence[int] | None = None,
    ):
        masks = torch.as_tensor(menu)
        bits = masks.flatten(1) if masks.ndim == 3 else masks
        fits = bits.ndim == 2 and len(bits) > 0 and bits.shape[1] == space.num_bits
        if not (fits and ((bits == 0) | (bits == 1)).all()):
            will_do = f"(K, {space.num_bits}) of 0 and 1, K at least 1,"
            raise ValueError(f"menu: got shape {tuple(masks.shape)}; {will_do} will do")
        self.groups = [len(bits)] if groups is None else list(groups)
        if min(self.groups, default=0) < 1 or sum(self.groups) != len(bits):
            raise ValueError(f"groups: got {self.groups}; sizes that sum to {len(bits)}, the parts, will do")
        self.menu = bits.bool().view(-1, space.num_cells, space.num_modules)
        self.count = len(self.menu)
        parts = self.menu.split(self.groups)
        if (torch.stack([part.any(0) for part in parts]).sum(0) > 1).any():
            raise ValueError("menu: got a module that parts of two groups have; one of the groups will do")
        certain = torch.stack([part.any(2).all(0) for part in parts]).any(0)
        if not all(on or cell.keeps_shape for on, cell in zip(certain.tolist(), space.cells, strict=True)):
            raise ValueError("menu: got a mask with an empty cell that changes shape; repaired ones will do")

    def latencies(self, modules: Tensor) -> Tensor:
        return (self.menu * modules).sum((1, 2))

    def best(self, surplus: Tensor) -> Tensor:
        return self._taken([part.argmax(1) for part in surplus.split(self.groups, 1)])

    def random(self, count: int, generator: torch.Generator) -> Tensor:
        return self._taken([torch.randint(size, (count,), generator=generator) for size in self.groups])

    def explore(self, choices: Tensor, flip: float, generator: torch.Generator) -> Tensor:
        drawn = self.random(len(choices), generator)
        redrawn = torch.rand(len(choices), len(self.groups), generator=generator) < flip
        return torch.where(redrawn.repeat_interleave(torch.tensor(self.groups), 1), drawn, choices)

    def masks(self, choices: Tensor) -> Tensor:
        taken = choices.float() @ self.menu.flatten(1).float()
        return (taken > 0).view(-1, *self.menu.shape[1:])

    def certain(self) -> tuple[list[int], list[int]]:
        bits = self.menu.flatten(1)
        always = torch.stack([part.all(0) for part in bits.split(self.groups)]).any(0)
        return always.nonzero().flatten().tolist(), (~bits.any(0)).nonzero().flatten().tolist()

    def _taken(self, numbers: Sequence[Tensor]) -> Tensor:
        """The choice of these parts, one ``(B,)`` for each group, counted within it."""
        one_hot = [F.one_hot(part, size) for part, size in zip(numbers, self.groups, strict=True)]
        return torch.cat(one_hot, 1).bool()
