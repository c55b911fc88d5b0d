"""The plainest policies to compare with: one mask for all images, and random masks."""

from __future__ import annotations

from torch import Tensor

from agents.agent import Agent
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for


class StaticAgent(Agent):
    """The same mask ``(num_cells, num_modules)`` for every image."""

    def __init__(self, space: SearchSpace, mask: Tensor):
        super().__init__(space)
        self.mask = space.repair(mask)

    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """The mask, once for each image."""
        return self.mask.expand(len(images), -1, -1)


class RandomAgent(Agent):
    """Each module on with probability ``keep``, for each image anew."""

    def __init__(self, space: SearchSpace, keep: float = 0.5, seed: int = 0):
        super().__init__(space)
        self.keep = keep
        self.generator = generator_for(seed)

    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """A fresh draw for each image."""
        return self.space.random_masks(len(images), self.keep, self.generator)
