"""BlockDrop (Wu et al., 2018), a baseline of section 4.2: each image drops some of MobileNetV2's blocks.

One network, MobileNetV2's path through the meta-graph, and 17 choices instead of 85: keep a cell's block u_t
(module 2) or pass its input on. The learner is self-critical REINFORCE; this paper's p' is BlockDrop's too.
BlockDrop's own reward pays for what is left out, as long as the answer is right:

    R(u) = 1 - (|u|_0 / T)^2   if correct,      -gamma   otherwise.

A cell that changes shape has no identity to fall back on, so it always keeps its block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, get_args

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from agents.agent import space_of
from agents.controller import Controller
from agents.reinforce import LogProbability, SelfCriticalReinforce
from instanas_env import checks
from instanas_env.deploy.onnx_graph import OnnxGraph
from instanas_env.search_space import SearchSpace
from instanas_env.training.distributed import ALONE, World

RewardName = Literal["blocks", "environment"]


def block_reward(kept: Tensor, correct: Tensor, gamma: float) -> Tensor:
    """R(u): ``1 - share^2`` where correct, ``-gamma`` elsewhere.

    Args:
        kept: which blocks are used, bool ``(..., T)``.
        correct: bool ``(...)``.
        gamma: the penalty of a wrong answer.

    Returns:
        float64 ``(...)``.
    """
    share = kept.double().mean(-1)
    return torch.where(correct, 1 - share**2, -gamma)


def free_blocks(droppable: Tensor, progress: float) -> Tensor:
    """The curriculum: which blocks may be dropped, bool ``(T,)``.

    As many stages as droppable blocks, equally long. The last one is free at first; each stage frees the
    one before it, and in the last stage all are free.

    Args:
        droppable: the blocks that may ever be dropped, bool ``(T,)``.
        progress: through the curriculum; from 1 on it is over.
    """
    count = int(droppable.sum())
    stage = count if progress >= 1 else min(count, 1 + int(progress * count))
    from_the_end = droppable.flip(0).cumsum(0).flip(0)
    return droppable & (from_the_end <= stage)


class BlockController(Controller):
    """The paper's controller with one logit per cell; ``free`` ``(T,)`` tells which blocks may be dropped.

    That is kept with the weights: a policy saved in the middle of a curriculum must not drop blocks about
    which it has learnt nothing.
    """

    free: Tensor

    def __init__(self, space: SearchSpace, generator: torch.Generator):
        super().__init__(space, outputs=space.num_cells, generator=generator)
        self.register_buffer("free", ~space.needs_module)


class BlockDrop(SelfCriticalReinforce):
    """The BlockDrop agent.

    Args:
        env: from ``gym.make_vec``; its space must hold MobileNetV2's block.
        reward: "blocks" is R(u) above. "environment" learns from the environment's reward, as our other
            agents do; but the middle of its window is made for 85 modules, and where that lies above
            MobileNetV2 (0.3 of the full graph in the benchmark regime) dropping a block only costs.
        gamma: penalty of a wrong answer in "blocks".
        curriculum_timesteps: over so many images blocks are freed one by one, the last ones first; None
            lets all be dropped from the start.
        learning_rate, alpha, horizon: as in :class:`SelfCriticalReinforce`; alpha is fixed here.
        entropy_coefficient, samples_per_image: as there; by default the greedy baseline, as in BlockDrop.
        log_probability_under, seed, space, world: as there.
    """

    hyperparameters: ClassVar[tuple[str, ...]] = (
        "learning_rate", "alpha", "horizon", "entropy_coefficient", "samples_per_image",
        "log_probability_under", "seed", "reward", "gamma", "curriculum_timesteps",
    )  # fmt: skip

    controller: BlockController

    def __init__(
        self,
        env: gym.vector.VectorEnv | None,
        reward: RewardName = "blocks",
        gamma: float = 5.0,
        curriculum_timesteps: int | None = None,
        learning_rate: float = 3e-3,
        alpha: tuple[float, float] = (0.8, 0.8),
        horizon: int | None = None,
        entropy_coefficient: float = 0.0,
        samples_per_image: int = 1,
        log_probability_under: LogProbability = "p_prime",
        seed: int = 0,
        space: SearchSpace | None = None,
        world: World = ALONE,
    ):
        self.reward: RewardName = checks.choice("reward", reward, get_args(RewardName))
        self.gamma = checks.number("gamma", gamma, 0)
        self.curriculum_timesteps = checks.whole_or_none("curriculum_timesteps", curriculum_timesteps, 1)
        self._blocks = space_of(env, space).mobilenet_v2_mask()
        super().__init__(
            env,
            learning_rate=learning_rate,
            constant_rate=1.0,
            alpha=alpha,
            horizon=horizon,
            entropy_coefficient=entropy_coefficient,
            samples_per_image=samples_per_image,
            log_probability_under=log_probability_under,
            naming_coefficient=0.0,
            seed=seed,
            space=space,
            world=world,
        )
        if curriculum_timesteps is not None:
            self.controller.free.copy_(free_blocks(~self.space.needs_module, 0))

    def train(self, total_timesteps: int) -> Iterator[dict[str, float]]:
        """As :class:`SelfCriticalReinforce`; the statistics tell how many blocks were free."""
        for statistics in super().train(total_timesteps):
            free = int(self.controller.free.sum())
            self._advance()
            yield {**statistics, "free_blocks": free}

    def _advance(self) -> None:
        """Free the blocks that the curriculum frees at this point."""
        if self.curriculum_timesteps is not None:
            progress = self.num_timesteps / self.curriculum_timesteps
            # An agent of an older file counts from 0 again, and keeps the blocks that it had free.
            self.controller.free |= free_blocks(~self.space.needs_module, progress)

    @staticmethod
    def _network(space: SearchSpace, num_classes: int, generator: torch.Generator) -> BlockController:
        return BlockController(space, generator)

    def _held(self, probabilities: Tensor) -> Tensor:
        return torch.where(self.controller.free, probabilities, 1.0)

    def _actions(self, choices: Tensor) -> Tensor:
        return (choices.unsqueeze(-1) & self._blocks).flatten(-2)

    def _actions_to_onnx(self, graph: OnnxGraph, choices: str) -> str:
        held = graph.op("Or", choices, graph.constant(~self.controller.free.view(1, -1)))
        column = graph.op("Reshape", held, graph.constant(np.array([-1, 1])))
        bits = graph.op("And", column, graph.constant(self._blocks))
        return graph.op("Reshape", bits, graph.constant(np.array([1, -1])))

    def _judged(self, choices: Tensor, reward: np.ndarray, correct: np.ndarray) -> Tensor:
        if self.reward == "environment":
            return super()._judged(choices, reward, correct)
        return block_reward(choices, torch.from_numpy(correct), self.gamma)
