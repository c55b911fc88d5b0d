"""The experience that reward regression keeps and trains on again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from instanas_env.training.distributed import World

Experience = tuple[Tensor, Tensor, Tensor, Tensor]
"""Images uint8 ``(n, 3, H, W)``, choices bool ``(K, n, arms)``, correct bool ``(K, n)``, labels ``(n,)``."""
BATCH_DIMENSIONS = (0, 1, 1, 0)
"""The dimension of each of these that counts images."""


class Memory:
    """The last steps of the environment, at most ``size``; each process keeps its own images."""

    def __init__(self, size: int):
        self._steps: deque[Experience] = deque(maxlen=size)

    def __iter__(self) -> Iterator[Experience]:
        return iter(self._steps)

    def keep(self, experience: Experience) -> None:
        """Append a step; the oldest one goes where there is no room."""
        self._steps.append(experience)

    def recall(self, number: int, generator: torch.Generator) -> Experience:
        """The newest step for ``number`` 0, otherwise one that is drawn."""
        newest = number == 0
        return self._steps[-1 if newest else int(torch.randint(len(self._steps), (), generator=generator))]

    def state(self, world: World) -> list[Experience]:
        """The steps with the images of all processes."""
        return [_for_each(step, world.gather) for step in self._steps]

    def restore(self, state: list[Experience], world: World) -> None:
        """Take over :meth:`state`, each process its own images."""
        self._steps.clear()
        self._steps.extend(_for_each(step, world.own) for step in state)


def _for_each(step: Experience, share: Callable[..., Tensor]) -> Experience:
    images, choices, correct, labels = (
        share(tensor, dim=dim) for tensor, dim in zip(step, BATCH_DIMENSIONS, strict=True)
    )
    return images, choices, correct, labels
