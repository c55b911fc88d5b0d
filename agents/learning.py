"""What learning agents have in common: the loop's pieces, their files, and where a resumed run goes on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from agents.agent import Agent, check_wrappers, env_to_learn_from, native
from instanas_env import checks
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import PathLike, check_weights
from instanas_env.training.distributed import ALONE, World
from instanas_env.vector_env import InstaNASVectorEnv

MOST_TIMESTEPS = 10**12
FROM_INFO = {"accuracy": "correct", "latency_ms": "latency_ms"}
"""The statistics that every learner tells of a step, and the keys of ``info`` that they are means of."""


class LearningAgent(Agent):
    """An agent with a controller that is trained on an environment.

    Args:
        env: from ``gym.make_vec``; None for an agent that only predicts.
        space: the search space; by default the environment's.
        controller: the network.
        seed: of all the agent's draws.
        world: the processes that learn together, each from its shard of the environment.
    """

    controller: nn.Module
    optimizer: torch.optim.Optimizer
    _env: gym.vector.VectorEnv | None = None
    _begun = False  # whether this agent has reset that environment

    def __init__(
        self,
        env: gym.vector.VectorEnv | None,
        space: SearchSpace,
        controller: nn.Module,
        seed: int,
        world: World = ALONE,
    ):
        super().__init__(space)
        self.controller = controller
        self.seed = seed
        self.generator = generator_for(seed, 1)
        self.world = checks.instance("world", world, World)
        world.synchronise(controller)
        self.num_timesteps = 0
        self.env = env

    @property
    def env(self) -> gym.vector.VectorEnv | None:
        """What it learns from; another one, which is reset before the first step there, can be assigned.

        Raises:
            ValueError: another search space, other actions than bits, or a wrapper that changes actions or
                rewards.
        """
        return self._env

    @env.setter
    def env(self, env: gym.vector.VectorEnv | None) -> None:
        if env is not None:
            self._check_env(env, self.space)
        if env is not self._env:
            self._begun = False
        self._env = env

    @classmethod
    def _check_env(cls, env: gym.vector.VectorEnv, space: SearchSpace) -> None:
        super()._check_env(env, space)
        check_wrappers(env)
        shape = env.single_action_space.shape
        if shape != (space.num_bits,):
            raise ValueError(f"env: got actions of shape {shape}; InstaNAS-v1 with actions='bits' will do")

    @abstractmethod
    def train(self, total_timesteps: int) -> Iterator[dict[str, float]]:
        """Learn from ``total_timesteps`` further images, yielding statistics after every step."""

    def learn(self, total_timesteps: int, *, progress_bar: bool = False) -> Self:
        """Learn from ``total_timesteps`` further images (rounded up to whole steps of the environment)."""
        checks.whole("total_timesteps", total_timesteps, 1, MOST_TIMESTEPS)
        checks.flag("progress_bar", progress_bar)
        steps: Any = self.train(total_timesteps)
        if progress_bar:
            from rich.progress import track

            steps = track(steps, type(self).__name__, total=self._steps(total_timesteps))
        for _ in steps:
            pass
        return self

    def _native(self) -> InstaNASVectorEnv:
        inner = native(env_to_learn_from(self.env))
        bandit, world = inner.bandit, self.world
        named, last = self.num_classes, int(bandit.image_set.labels.max())
        if 0 < named <= last:
            raise ValueError(
                f"env: its images have labels up to {last}; num_classes of this agent is {named}"
            )
        if (bandit.shard, bandit.shards) != (world.rank, world.size):
            shard = (bandit.shard, bandit.shards)
            raise ValueError(f"env: got shard {shard}; this agent's, {(world.rank, world.size)}, will do")
        return inner

    def _steps(self, total_timesteps: int) -> int:
        """How many steps of the environment bring at least so many images."""
        return -(-total_timesteps // (self._native().num_envs * self.world.size))

    def _update(self, loss: Tensor) -> None:
        """One step of the optimizer along the gradient of the mean ``loss`` of all processes."""
        self.optimizer.zero_grad()
        loss.backward()
        self.world.average_gradients(self.controller.parameters())
        self.optimizer.step()

    def _means(self, info: dict[str, Any], **figures: float) -> dict[str, float]:
        """``figures`` of a step, and what ``info`` says of its images, as means over all processes."""
        figures |= {name: float(info[key].mean()) for name, key in FROM_INFO.items()}
        return dict(zip(figures, self.world.mean(list(figures.values())), strict=True))

    def _begin(self) -> np.ndarray:
        """The images that wait; resets the environment before this agent's very first step only."""
        assert self.env is not None
        if not self._begun:
            self.env.reset(seed=self.seed)
            self._begun = True
        return native(self.env).images()

    def _step(self, actions: Tensor) -> tuple[np.ndarray, dict[str, Any]]:
        """Act; rewards ``(n,)`` and what became of the images acted on."""
        assert self.env is not None
        bits = actions.to(torch.int8).cpu().numpy()
        _, reward, _, _, info = self.env.step(bits)
        self.num_timesteps += len(bits) * self.world.size
        return np.asarray(reward), info["final_info"]

    # --- files -----------------------------------------------------------------------------------

    @classmethod
    def _restore(
        cls, env: gym.vector.VectorEnv | None, space: SearchSpace, hyperparameters: dict[str, Any]
    ) -> Self:
        return cls(env, space=space, **hyperparameters)  # type: ignore[call-arg]

    def _weights(self) -> dict[str, Tensor]:
        return self.controller.state_dict()

    def _take(self, weights: dict[str, Tensor], path: PathLike) -> None:
        check_weights(weights, self.controller.state_dict(), f"path: {path}")
        self.controller.load_state_dict(weights, strict=False)  # without BatchNorm's counters
        self.controller.eval()

    # --- resuming --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, besides the environment's own state."""
        return {
            "controller": self.controller.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "num_timesteps": self.num_timesteps,
            "begun": self._begun,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another agent of the same make stood."""
        self.controller.load_state_dict(state["controller"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.num_timesteps = state["num_timesteps"]
        self._begun = state["begun"]
