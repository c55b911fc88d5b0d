"""What a learner chooses between: every module on its own, or whole masks off a menu.

A choice is always a bool vector with one entry for each output of a controller (the modules that are on, or
the mask that is taken), and its latency is the sum of its entries' latencies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from instanas_env.deploy.onnx_graph import OnnxGraph
from instanas_env.search_space import SearchSpace


class Arms(ABC):
    """A way to choose masks; ``count`` is the length of a choice."""

    count: int

    @abstractmethod
    def latencies(self, modules: Tensor) -> Tensor:
        """ms of each entry ``(count,)``, given those of the modules ``(num_cells, num_modules)``."""

    @abstractmethod
    def worth(self, base: Tensor, gains: Tensor) -> Tensor:
        """What each entry adds to P(correct), ``(B, count)``, up to what all choices share.

        Args:
            base: b(x) of :mod:`agents.reward_regression`, ``(B,)``.
            gains: w(x), ``(B, count)``.
        """

    @abstractmethod
    def best(self, surplus: Tensor) -> Tensor:
        """The choice of the largest total surplus, ``(B, count)`` to bool ``(B, count)``."""

    @abstractmethod
    def random(self, tries: int, images: int, generator: torch.Generator) -> Tensor:
        """Choices to learn from, bool ``(tries, images, count)``."""

    @abstractmethod
    def explore(self, choices: Tensor, flip: float, generator: torch.Generator) -> Tensor:
        """Choices near ``(B, count)`` ones; ``flip`` is the probability of another entry."""

    @abstractmethod
    def masks(self, choices: Tensor) -> Tensor:
        """Repaired masks ``(..., num_cells, num_modules)`` of choices ``(..., count)``."""

    @property
    @abstractmethod
    def combinations(self) -> Tensor:
        """Sums of b(x) and w(x), ``(n, 1 + count)``, that :meth:`worth_to_onnx` needs."""

    @abstractmethod
    def worth_to_onnx(self, graph: OnnxGraph, sums: str) -> str:
        """Write :meth:`worth`: the :attr:`combinations` of an image, float ``(1, n)``, to ``(1, count)``."""

    @abstractmethod
    def best_to_onnx(self, graph: OnnxGraph, surplus: str) -> str:
        """Write both: the surplus, float ``(1, count)``, to bits, bool ``(1, num_bits)``."""


class ModuleArms(Arms):
    """Switches each module by itself; a cell that must not stay empty keeps its best one.

    What a module adds to P(correct) depends on the others. To first order it is p (1 - p) w_i, where p is
    that of a network with one module in every cell, an average one: of b(x) and a mean of w(x) for each.
    """

    def __init__(self, space: SearchSpace):
        self.space = space
        self.count = space.num_bits
        self.needed = space.needs_module.unsqueeze(1)

    def latencies(self, modules: Tensor) -> Tensor:
        return modules.flatten()

    def worth(self, base: Tensor, gains: Tensor) -> Tensor:
        p = (base + gains.sum(1) / self.space.num_modules).sigmoid().unsqueeze(1)
        return p * (1 - p) * gains

    def best(self, surplus: Tensor) -> Tensor:
        cells = surplus.view(-1, *self.space.mask_shape)
        best = F.one_hot(cells.argmax(2), self.space.num_modules).bool()
        return ((cells > 0) | (best & self.needed)).flatten(1)

    def random(self, tries: int, images: int, generator: torch.Generator) -> Tensor:
        keep = torch.rand(tries * images, generator=generator)  # every density
        return self.space.random_masks(tries * images, keep, generator).view(tries, images, -1)

    def explore(self, choices: Tensor, flip: float, generator: torch.Generator) -> Tensor:
        flipped = choices ^ (torch.rand(choices.shape, generator=generator) < flip)
        return self.space.repair(self.masks(flipped)).flatten(1)

    def masks(self, choices: Tensor) -> Tensor:
        return choices.unflatten(-1, self.space.mask_shape)

    @property
    def combinations(self) -> Tensor:
        average = torch.cat([torch.ones(1), torch.full((self.count,), 1 / self.space.num_modules)])
        return torch.cat([average[None], torch.eye(1 + self.count)[1:]])

    def worth_to_onnx(self, graph: OnnxGraph, sums: str) -> str:
        """As :class:`Arms`: the logit of the average mask gives the slope by which gains count."""
        logit, gains = graph.ops("Split", sums, graph.constant(np.array([1, self.count])), outputs=2, axis=1)
        p = graph.op("Sigmoid", logit)
        slope = graph.op("Mul", p, graph.op("Sub", graph.constant(np.float32(1)), p))
        return graph.op("Mul", slope, gains)

    def best_to_onnx(self, graph: OnnxGraph, surplus: str) -> str:
        """As :meth:`Arms.best_to_onnx`; where a cell needs a module, the best one is on."""
        shape = graph.constant(np.array(self.space.mask_shape))
        cells = graph.op("Reshape", surplus, shape)
        first = graph.op("ArgMax", cells, axis=1, keepdims=1)
        best = graph.op("Equal", first, graph.constant(np.arange(self.space.num_modules)[None]))
        kept = graph.op("And", best, graph.constant(self.needed))
        on = graph.op("Greater", cells, graph.constant(np.float32(0)))
        return graph.op("Reshape", graph.op("Or", on, kept), graph.constant(np.array([1, -1])))


class MenuArms(Arms):
    """Takes one mask off a menu.

    Args:
        space: the search space.
        menu: the masks, ``(K, bits)`` or ``(K, num_cells, num_modules)``.

    Raises:
        ValueError: it is none, or holds a mask with an empty cell that changes shape.
    """

    def __init__(self, space: SearchSpace, menu: Tensor | Sequence[Sequence[int]]):
        self.menu = space.read_masks(menu, "menu")
        if self.menu.ndim != 3 or len(self.menu) == 0:
            got = f"masks of shape {tuple(self.menu.shape)}"
            raise ValueError(f"menu: got {got}; (K, {space.num_bits}) of 0 and 1, K at least 1, will do")
        self.count = len(self.menu)
        if not torch.equal(space.repair(self.menu), self.menu):
            raise ValueError("menu: got a mask with an empty cell that changes shape; repaired ones will do")

    def latencies(self, modules: Tensor) -> Tensor:
        return (self.menu * modules).sum((1, 2))

    def worth(self, base: Tensor, gains: Tensor) -> Tensor:
        return (base.unsqueeze(1) + gains).sigmoid()

    def best(self, surplus: Tensor) -> Tensor:
        return F.one_hot(surplus.argmax(1), self.count).bool()

    def random(self, tries: int, images: int, generator: torch.Generator) -> Tensor:
        """As :class:`Arms`; no image gets a mask twice before it has had them all."""
        orders = torch.rand(images, self.count, generator=generator).argsort(1)
        numbers = orders[:, torch.arange(tries) % self.count].T
        return F.one_hot(numbers, self.count).bool()

    def explore(self, choices: Tensor, flip: float, generator: torch.Generator) -> Tensor:
        drawn = self.random(1, len(choices), generator)[0]
        redrawn = torch.rand(len(choices), 1, generator=generator) < flip
        return torch.where(redrawn, drawn, choices)

    def masks(self, choices: Tensor) -> Tensor:
        return self.menu[choices.float().argmax(-1)]

    @property
    def combinations(self) -> Tensor:
        return torch.cat([torch.ones(self.count, 1), torch.eye(self.count)], 1)

    def worth_to_onnx(self, graph: OnnxGraph, sums: str) -> str:
        return graph.op("Sigmoid", sums)

    def best_to_onnx(self, graph: OnnxGraph, surplus: str) -> str:
        number = graph.op("ArgMax", surplus, axis=1, keepdims=0)
        return graph.op("Gather", graph.constant(self.menu.flatten(1)), number)
