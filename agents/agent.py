"""What every agent has in common: the surface of a Stable-Baselines3 model, without depending on it.

``predict(observation) -> (actions, None)``, ``save(path)``, ``Class.load(path)``, and ``learn`` where
there is something to learn; so ``stable_baselines3.common.evaluation.evaluate_policy`` takes them all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from instanas_env import arrays, checks
from instanas_env.deploy.choice import Exit
from instanas_env.deploy.onnx_graph import OnnxGraph
from instanas_env.search_space import SearchSpace
from instanas_env.storage import PathLike, load_weights, save_weights
from instanas_env.validation import integer, json_object, record
from instanas_env.vector_env import InstaNASVectorEnv

NETWORK = -1
"""In the place of an answer: the network of the mask is to answer."""

NO_NAMES = (
    "names: this agent learns none; a SelfCriticalReinforce or RewardRegression made with num_classes=10,"
    " say, will do"
)

_CONFIG = record(
    {"search_space": SearchSpace.from_config, "hyperparameters": json_object},
    {"num_timesteps": integer(0, 10**18)},  # older files have none
    more=True,
)


def native(env: gym.vector.VectorEnv) -> InstaNASVectorEnv:
    """The environment inside any wrappers; ``ValueError`` if it is not ours."""
    inner = getattr(env, "unwrapped", env)
    if not isinstance(inner, InstaNASVectorEnv):
        raise ValueError(
            f'env: got {type(inner).__name__}; gym.make_vec("InstaNAS-v1", num_envs=...) will do'
        )
    return inner


def env_to_learn_from(env: gym.vector.VectorEnv | None) -> gym.vector.VectorEnv:
    """The environment of a learner; ``ValueError`` for none, and where autoreset is not SAME_STEP."""
    if env is None:
        raise ValueError("env: this agent was made without one; assign agent.env to train it")
    mode = env.metadata.get("autoreset_mode")
    if mode is not gym.vector.AutoresetMode.SAME_STEP:
        raise ValueError(f"env: got autoreset_mode {mode}; SAME_STEP will do")
    return env


def space_of(env: gym.vector.VectorEnv | None, space: SearchSpace | None) -> SearchSpace:
    """``space``, or else the environment's; ``ValueError`` if there is neither.

    Whether two that are given agree is checked where ``agent.env`` is set.
    """
    if space is None and env is None:
        raise ValueError("env: got None and no space; one of the two is needed")
    if space is not None:
        return checks.instance("space", space, SearchSpace)
    return native(env).bandit.space  # type: ignore[arg-type]


def check_wrappers(env: gym.vector.VectorEnv) -> None:
    """``ValueError`` if a wrapper around an environment changes what ``score()`` is asked or answers."""
    actions = gym.vector.VectorActionWrapper
    # NormalizeReward is no VectorRewardWrapper.
    rewards = (gym.vector.VectorRewardWrapper, gym.wrappers.vector.NormalizeReward)
    while isinstance(env, gym.vector.VectorWrapper):
        if isinstance(env, (actions, *rewards)):
            what = "actions" if isinstance(env, actions) else "rewards"
            kind = type(env).__name__
            raise ValueError(
                f"env: a wrapper changes its {what}, {kind}, but score() knows nothing of it; unwrap it"
            )
        env = env.env


class Agent(ABC):
    """Chooses a mask for each image.

    Attributes:
        space: the search space of the masks.
        controller: the network that each choice costs, or None where choosing is free.
    """

    controller: nn.Module | None = None
    num_timesteps: int = 0
    """So many images it has learnt from."""
    num_classes: int = 0
    """So many classes the controller also learns to name; 0 where it learns none."""
    hyperparameters: ClassVar[tuple[str, ...]] = ()
    """Names of attributes that ``save`` keeps beside the weights."""

    def __init__(self, space: SearchSpace):
        self.space = space

    @abstractmethod
    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """uint8 ``(B, 3, H, W)`` to bool ``(B, num_cells, num_modules)``, not necessarily repaired."""

    def own_answers(self, images: Tensor) -> Tensor:
        """Classes that the agent answers itself, so that no network runs, int64 ``(B,)``.

        Most agents only choose: :data:`NETWORK` for every image. One that answers overrides this
        and :meth:`name_logits`, of which the answer is the largest: see
        :class:`agents.early_exit.EarlyExit`.
        """
        return torch.full((len(images),), NETWORK)

    @torch.no_grad()
    def names(self, images: Tensor) -> Tensor:
        """The classes ``(B,)`` that the controller itself takes images ``(B, 3, H, W)`` for.

        Raises:
            ValueError: it learns no names.
        """
        if self.num_classes == 0:
            raise ValueError(NO_NAMES)
        return self.name_logits(images).argmax(1)

    def name_logits(self, images: Tensor) -> Tensor:
        """Logits of the names, ``(B, num_classes)``; ``ValueError`` from an agent that never learns any."""
        raise ValueError(NO_NAMES)

    @property
    def may_answer(self) -> bool:
        """Whether the agent may answer images itself, be it none of these."""
        return type(self).own_answers is not Agent.own_answers

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
            deterministic: False asks a stochastic agent for a sample. In SB3 that is the default.
        """
        images, is_batch = arrays.images("observation", observation, self.space.resolution)
        actions = self.masks(images, deterministic).flatten(1).to(torch.int8).cpu().numpy()
        return (actions if is_batch else actions[0]), None

    @property
    def has_dial(self) -> bool:
        """Whether :meth:`dial` sets the mean latency."""
        return False

    def dial(self, images: Tensor, latency_ms: float) -> float:
        """Let the networks of ``images``, uint8 ``(B, 3, H, W)``, take ``latency_ms`` on average; gives the
        new lambda.

        Raises:
            ValueError: an agent that has no dial.
        """
        raise ValueError(f"dial: {type(self).__name__} has none; RewardRegression will do")

    @property
    def has_onnx(self) -> bool:
        """Whether the policy has an ONNX form, and its own answers have one if it gives any."""
        kind = type(self)
        answers = not self.may_answer or kind.exit_to_onnx is not Agent.exit_to_onnx
        return kind.bits_to_onnx is not Agent.bits_to_onnx and answers

    def bits_to_onnx(self, graph: OnnxGraph, image: str) -> str:
        """Write the deterministic policy: image uint8 ``(1, 3, H, W)`` to bits, bool ``(1, num_bits)``.

        Raises:
            ValueError: an agent that has no ONNX form.
        """
        raise ValueError(
            f"agent: {type(self).__name__} has no ONNX form; one of ours, except RandomAgent, will do"
        )

    def exit_to_onnx(self, graph: OnnxGraph, image: str) -> Exit | None:
        """Write when the agent answers an image uint8 ``(1, 3, H, W)`` itself; None if it never does.

        Raises:
            ValueError: an agent that answers, but has no ONNX form of it.
        """
        if self.may_answer:
            raise ValueError(
                f"agent: {type(self).__name__} answers images itself, without exit_to_onnx; EarlyExit will do"
            )
        return None

    def save(self, path: PathLike, record: dict[str, Any] | None = None) -> None:
        """Write the agent as safetensors: its weights, if it has any, its hyperparameters and the count of
        images learnt from.

        To predict, and to learn on with a fresh optimizer. The optimizer's state, and a memory that is
        trained on again, are in ``state_dict`` only.
        """
        config = {
            "agent": type(self).__name__,
            "search_space": self.space.config,
            "hyperparameters": {name: getattr(self, name) for name in self.hyperparameters},
            "num_timesteps": self.num_timesteps,
            "record": record,
        }
        save_weights(path, self._weights(), config)

    @classmethod
    def load(cls, path: PathLike, env: gym.vector.VectorEnv | None = None) -> Self:
        """Read an agent; ``ValueError`` if the file holds something else or ``env`` does not fit it."""
        weights, config = load_weights(path)
        if config.get("agent") != cls.__name__:
            raise ValueError(f"path: {path} holds {config.get('agent', 'no agent')!r}, not {cls.__name__!r}")
        with checks.explained(f"path: {path} holds no agent"):
            checked = _CONFIG(config, "config")
        space = checked["search_space"]
        if env is not None:
            cls._check_env(env, space)
        wrong = (KeyError, TypeError, IndexError, AttributeError)
        with checks.explained(f"path: {path} has other hyperparameters", *wrong):
            agent = cls._restore(env, space, checked["hyperparameters"])
        agent._take(weights, path)
        agent.num_timesteps = checked.get("num_timesteps", 0)
        return agent

    @classmethod
    def _check_env(cls, env: gym.vector.VectorEnv, space: SearchSpace) -> None:
        """``ValueError`` unless ``env`` is one of ours and of this search space."""
        if native(env).bandit.space != space:
            raise ValueError(f"env: its search space is not the agent's, {space.config}")

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
