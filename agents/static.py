"""The plainest policies to compare with: one mask for all images, and random masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
from torch import Tensor
from typing_extensions import Self

from agents.agent import Agent
from instanas_env import checks
from instanas_env.deploy.onnx_graph import OnnxGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for


class StaticAgent(Agent):
    """The same mask for every image.

    Args:
        space: the search space.
        mask: ``(num_cells, num_modules)`` or its bits ``(num_bits,)``; is repaired.
    """

    hyperparameters: ClassVar[tuple[str, ...]] = ("bits",)

    def __init__(self, space: SearchSpace, mask: Tensor | Sequence[int]):
        super().__init__(space)
        given = space.read_masks(mask, "mask")
        if given.ndim != 2:
            raise ValueError(f"mask: got shape {tuple(given.shape)}; {space.num_bits} zeros and ones will do")
        self.mask = space.repair(given)

    @property
    def bits(self) -> list[int]:
        """The mask as zeros and ones ``(num_bits,)``."""
        return self.mask.flatten().int().tolist()

    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """The mask, once for each image."""
        return self.mask.expand(len(images), -1, -1)

    def bits_to_onnx(self, graph: OnnxGraph, image: str) -> str:
        return graph.constant(self.mask.view(1, -1))

    @classmethod
    def _restore(
        cls, env: gym.vector.VectorEnv | None, space: SearchSpace, hyperparameters: dict[str, Any]
    ) -> Self:
        return cls(space, hyperparameters["bits"])


class RandomAgent(Agent):
    """Each module on with probability ``keep``, for each image anew."""

    hyperparameters: ClassVar[tuple[str, ...]] = ("keep", "seed")

    def __init__(self, space: SearchSpace, keep: float = 0.5, seed: int = 0):
        super().__init__(space)
        self.keep = checks.number("keep", keep, 0, 1)
        self.seed = checks.whole("seed", seed)
        self.generator = generator_for(self.seed)

    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """A fresh draw for each image."""
        return self.space.random_masks(len(images), self.keep, self.generator)
