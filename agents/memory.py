"""What a learner was shown and told, kept to be trained on again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from instanas_env.training.distributed import World


class Experience(NamedTuple):
    """Images uint8 ``(n, 3, H, W)``, choices bool ``(K, n, arms)``, which were correct, bool ``(K, n)``,
    and the labels of the images, ``(n,)``.
    """

    images: Tensor
    choices: Tensor
    correct: Tensor
    labels: Tensor

    def each(self, change: Callable[..., Tensor]) -> Experience:
        """Every tensor as ``change(tensor, dim=dim)`` makes it, where ``dim`` counts the images."""
        return Experience(*(change(tensor, dim=dim) for tensor, dim in zip(self, IMAGES, strict=True)))

    def take(self, rows: Tensor) -> Experience:
        """That of some images: ``rows`` are their positions ``(n,)``."""
        return self.each(lambda tensor, dim: tensor.index_select(dim, rows))


IMAGES = (0, 1, 1, 0)
"""The dimension of each tensor that counts the images."""


class Memory:
    """The experience of the last steps; where processes share each step, this one's part.

    Args:
        steps: so many are kept.
        world: the processes.
    """

    def __init__(self, steps: int, world: World):
        self.steps: deque[Experience] = deque(maxlen=steps)
        self.world = world

    def draw(self, generator: torch.Generator) -> Experience:
        """One of the steps."""
        return self.steps[int(torch.randint(len(self.steps), (), generator=generator))]

    def batches(self, passes: int, generator: torch.Generator) -> list[Tensor]:
        """Positions ``(n,)`` in :meth:`together`, of each batch of some passes over all, each in a new order.

        A batch has as many images as a step.
        """
        size, count = len(self.steps[0].labels) * self.world.size, len(self.steps)
        orders = (torch.randperm(size * count, generator=generator) for _ in range(passes))
        return [rows for order in orders for rows in order.split(size)]

    def together(self) -> Experience:
        """All steps as one, those of all processes."""
        return Experience(*map(torch.cat, zip(*self.state_dict(), strict=True), IMAGES))

    def state_dict(self) -> list[Experience]:
        """The steps, each that of all processes."""
        return [step.each(self.world.gather) for step in self.steps]

    def load_state_dict(self, state: list[Experience]) -> None:
        """Keep this process's part of the steps of others."""
        self.steps.clear()
        self.steps.extend(Experience(*step).each(self.world.own) for step in state)
