"""What every agent has in common: the surface of a Stable-Baselines3 model, without depending on it.

``predict(observation) -> (actions, None)``, ``save(path)``, ``Class.load(path)``, and ``learn`` where
there is something to learn; so ``stable_baselines3.common.evaluation.evaluate_policy`` takes them all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from instanas_env import checks
from instanas_env.deploy.onnx_graph import OnnxGraph
from instanas_env.search_space import SearchSpace
from instanas_env.storage import PathLike, check_weights, load_weights, save_weights
from instanas_env.training.distributed import ALONE, World
from instanas_env.validation import anything, record
from instanas_env.vector_env import InstaNASVectorEnv

MOST_TIMESTEPS = 10**12
_CONFIG = record({"search_space": anything, "hyperparameters": record({}, more=True)}, more=True)


def native(env: gym.vector.VectorEnv) -> InstaNASVectorEnv:
    """The environment inside any wrappers; ``ValueError`` if it is not ours."""
    inner = getattr(env, "unwrapped", env)
    if not isinstance(inner, InstaNASVectorEnv):
        raise ValueError(
            f'env: got {type(inner).__name__}; gym.make_vec("InstaNAS-v1", num_envs=...) will do'
        )
    return inner


def space_of(env: gym.vector.VectorEnv | None, space: SearchSpace | None) -> SearchSpace:
    """``space``, or else the environment's; ``ValueError`` if there is neither."""
    if space is None and env is None:
        raise ValueError("env: got None and no space; one of the two is needed")
    if space is not None:
        return checks.instance("space", space, SearchSpace)
    return native(env).bandit.space  # type: ignore[arg-type]


class Agent(ABC):
    """Chooses a mask for each image.

    Attributes:
        space: the search space of the masks.
        controller: the network that each choice costs, or None where choosing is free.
    """

    controller: nn.Module | None = None
    hyperparameters: ClassVar[tuple[str, ...]] = ()
    """Names of attributes that ``save`` keeps beside the weights."""

    def __init__(self, space: SearchSpace):
        self.space = space

    @abstractmethod
    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """uint8 ``(B, 3, H, W)`` to bool ``(B, num_cells, num_modules)``, not necessarily repaired."""

    def predict(
        self,
        observation: Any,
        state: None = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, None]:
        """Actions for one observation ``(3, H, W)`` or a batch ``(B, 3, H, W)``, int8; channels may come
        last.

        Args:
            observation: uint8 image or images, of the search space's size.
            state, episode_start: part of SB3's surface; without meaning here.
            deterministic: False asks a stochastic agent for a sample.
        """
        images, is_batch = checks.images("observation", observation, self.space.resolution)
        actions = self.masks(images, deterministic).flatten(1).to(torch.int8).cpu().numpy()
        return (actions if is_batch else actions[0]), None

    def bits_to_onnx(self, graph: OnnxGraph, image: str) -> str:
        """Write the deterministic policy: image uint8 ``(1, 3, H, W)`` to bits, bool ``(1, num_bits)``.

        Raises:
            ValueError: an agent that has no ONNX form.
        """
        raise ValueError(
            f"agent: {type(self).__name__} has no ONNX form; reinforce, regression or one mask for"
            " all images will do"
        )

    def save(self, path: PathLike, record: dict[str, Any] | None = None) -> None:
        """Write the agent as safetensors: its weights, if it has any, and its hyperparameters."""
        config = {
            "agent": type(self).__name__,
            "search_space": self.space.config,
            "hyperparameters": {name: getattr(self, name) for name in self.hyperparameters},
            "record": record,
        }
        save_weights(path, self._weights(), config)

    @classmethod
    def load(cls, path: PathLike, env: gym.vector.VectorEnv | None = None) -> Self:
        """Read an agent; ``ValueError`` if the file holds something else or belongs to another space."""
        weights, config = load_weights(path)
        if config.get("agent") != cls.__name__:
            raise ValueError(f"path: {path} holds {config.get('agent', 'no agent')!r}, not {cls.__name__!r}")
        try:
            checked = _CONFIG(config, "config")
            space = SearchSpace.from_config(checked["search_space"])
        except ValueError as error:
            raise ValueError(f"path: {path} holds no agent ({error})") from error
        if env is not None and native(env).bandit.space != space:
            raise ValueError(f"env: its search space is not the agent's, {space.config}")
        try:
            agent = cls._restore(env, space, checked["hyperparameters"])
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"path: {path} has other hyperparameters ({error!r})") from error
        agent._take(weights, path)
        return agent

    @classmethod
    def _restore(
        cls, env: gym.vector.VectorEnv | None, space: SearchSpace, hyperparameters: dict[str, Any]
    ) -> Self:
        """An agent with these hyperparameters, before its weights are loaded."""
        return cls(space=space, **hyperparameters)

    def _weights(self) -> dict[str, Tensor]:
        """The tensors that ``save`` writes."""
        return {}

    def _take(self, weights: dict[str, Tensor], path: PathLike) -> None:
        """Take over what :meth:`_weights` gave; ``ValueError`` if ``path`` held something else."""
        if weights:
            raise ValueError(f"path: {path} has weights, {sorted(weights)[:3]}; this agent has none")


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

    def __init__(
        self,
        env: gym.vector.VectorEnv | None,
        space: SearchSpace,
        controller: nn.Module,
        seed: int,
        world: World = ALONE,
    ):
        super().__init__(space)
        self.env = env
        self.controller = controller
        self.seed = seed
        self.world = checks.instance("world", world, World)
        world.synchronise(controller)
        self.num_timesteps = 0
        self._begun = False

    @abstractmethod
    def train(self, total_timesteps: int) -> Iterator[dict[str, float]]:
        """Learn from ``total_timesteps`` further images, yielding statistics after every step."""

    def learn(self, total_timesteps: int, progress_bar: bool = False) -> Self:
        """Learn from ``total_timesteps`` further images (rounded up to whole steps of the environment)."""
        total_timesteps = checks.whole("total_timesteps", total_timesteps, 1, MOST_TIMESTEPS)
        steps: Any = self.train(total_timesteps)
        if progress_bar:
            from rich.progress import track

            steps = track(steps, type(self).__name__, total=self._steps(total_timesteps))
        for _ in steps:
            pass
        return self

    def _native(self) -> InstaNASVectorEnv:
        if self.env is None:
            raise ValueError("env: this agent was made without one; assign agent.env to train it")
        inner = native(self.env)
        if inner.autoreset_mode is not gym.vector.AutoresetMode.SAME_STEP:
            raise ValueError(f"env: got autoreset_mode {inner.autoreset_mode}; SAME_STEP will do")
        if inner.form.shape != (inner.bandit.space.num_bits,):
            raise ValueError(f"env: got actions of shape {inner.form.shape}; actions='bits' will do")
        bandit, world = inner.bandit, self.world
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
        return {
            name: tensor
            for name, tensor in self.controller.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }

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

    optimizer: torch.optim.Optimizer
    generator: torch.Generator
