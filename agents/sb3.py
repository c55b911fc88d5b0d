"""Stable-Baselines3 on this environment: a features extractor for small images, and a VecEnv adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.agent import native
from agents.controller import Controller
from instanas_env import checks
from instanas_env.seeding import generator_for


class ControllerFeatures(BaseFeaturesExtractor):
    """The controller's convolutions as features; SB3's NatureCNN does not fit 32 x 32 images.

    Use it with ``policy_kwargs=dict(features_extractor_class=ControllerFeatures, normalize_images=False)``:
    the controller scales images itself. Channels come first, as SB3 hands images on.

    In a YAML of rl_zoo3, whose ``get_class_by_name`` is at hand where it evaluates ``policy_kwargs``::

        policy: CnnPolicy
        policy_kwargs: "dict(features_extractor_class=get_class_by_name('agents.sb3.ControllerFeatures'),
          normalize_images=False)"

    or, for algorithms with an actor and a critic, ``policy: agents.sb3.ControllerPolicy`` alone.
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 128, seed: int = 0):
        super().__init__(observation_space, features_dim)
        from instanas_env.search_space import SearchSpace

        if observation_space.dtype != np.uint8 or observation_space.shape[0] != 3:
            raise checks.refuse("observation_space", observation_space, "a Box of uint8 (3, H, W)")
        names = {32: "cifar", 64: "tiny_imagenet", 224: "imagenet"}
        side = observation_space.shape[-1]
        if side not in names:
            raise ValueError(f"observation_space: got images of {side} px; {sorted(names)} will do")
        space = SearchSpace.preset(names[side])
        # SB3's orthogonal initialisation, its default for PPO, cannot take channels_last weights.
        self.controller = Controller(space, outputs=features_dim, generator=generator_for(seed)).to(
            memory_format=torch.contiguous_format
        )
        torch.nn.init.normal_(self.controller.output.weight, std=0.1, generator=generator_for(seed, 1))

    def forward(self, observations: Tensor) -> Tensor:
        return self.controller(observations).relu()


class ControllerPolicy(ActorCriticPolicy):
    """SB3's policy for PPO, A2C and TRPO with :class:`ControllerFeatures`; other arguments as in SB3.

    ``PPO(ControllerPolicy, env)``, or ``policy: agents.sb3.ControllerPolicy`` in a YAML of rl_zoo3.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault("features_extractor_class", ControllerFeatures)
        kwargs.setdefault("normalize_images", False)
        super().__init__(*args, **kwargs)


class NativeVecEnv(VecEnv):
    """The native vector environment as an SB3 ``VecEnv``: one batched forward a step. Wrap in ``VecMonitor``.

    It steps and resets through whatever Gymnasium vector wrappers are around the environment.

    Args:
        envs: from ``gym.make_vec("InstaNAS-v1", num_envs=...)`` in its default mode, SAME_STEP; may be
        wrapped.
    """

    def __init__(self, envs: gym.vector.VectorEnv):
        inner = native(envs)
        if inner.autoreset_mode is not gym.vector.AutoresetMode.SAME_STEP:
            raise ValueError(f"envs: got autoreset_mode {inner.autoreset_mode}; SAME_STEP will do")
        self.envs = envs
        self.render_mode = inner.render_mode
        self._given: dict[str, Any] | list[dict[str, Any]] | None = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def set_options(self, options: dict[str, Any] | list[dict[str, Any]] | None = None) -> None:
        """Options of the next reset: those of the vector environment, or a dict for each image.

        ``{"index": array (num_envs,)}`` and ``[{"index": 5}, {"index": 6}, ...]`` are the same;
        ``{"index": 5}`` shows image 5 everywhere, as in SB3's own ``DummyVecEnv``.

        Raises:
            ValueError: neither of the two; the options given before stay.
        """
        _joined(options, self.num_envs)
        super().set_options(options)
        self._given = options

    def reset(self) -> np.ndarray:
        """The next images; honours ``seed()`` and ``set_options()``, which stay if it raises."""
        seed, options = self._seeds[0], _joined(self._given, self.num_envs)
        observation, info = self.envs.reset(seed=seed, options=options)
        self._reset_seeds()
        self.set_options()
        self.reset_infos = _rows(info, self.num_envs)
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """One step; ``terminal_observation`` and the step's results are in the infos, as SB3 has it.

        What wrappers add to the info, such as the ``episode`` of ``RecordEpisodeStatistics``, is there too.
        """
        observation, reward, terminated, _, info = self.envs.step(self._actions)
        final = info["final_info"]
        added = {name: info[name] for name in info if name not in final and not name.startswith("final_")}
        infos = _rows({**added, **final}, self.num_envs)
        for row, image in zip(infos, info["final_obs"], strict=True):
            row["terminal_observation"] = image
            row["TimeLimit.truncated"] = False
        return observation, np.asarray(reward, np.float32), terminated, infos

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self._owner(attr_name), attr_name)] * len(self._positions(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self._owner(attr_name), attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of the one environment behind all; its answer stands for each."""
        method = getattr(self._owner(method_name), method_name)
        return [method(*args, **kwargs)] * len(self._positions(indices))

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Whether one of the Gymnasium vector wrappers is a ``wrapper_class``."""
        wrapped = any(isinstance(layer, wrapper_class) for layer in self._layers())
        return [wrapped] * len(self._positions(indices))

    def get_images(self) -> Sequence[np.ndarray | None]:
        pictures: Any = self.envs.render()
        return pictures or [None] * self.num_envs

    def _layers(self) -> list[Any]:
        """The wrappers from the outside in, and the environment."""
        layers: list[Any] = [self.envs]
        while layers[-1] is not self.envs.unwrapped:
            layers.append(layers[-1].env)
        return layers

    def _owner(self, name: str) -> Any:
        """The outermost layer that has an attribute of its own; the environment if none has."""
        own = [layer for layer in self._layers() if name in vars(layer) or hasattr(type(layer), name)]
        return own[0] if own else self.envs.unwrapped

    def _positions(self, indices: Any) -> list[int]:
        return list(self._get_indices(indices))


def _joined(given: dict[str, Any] | list[dict[str, Any]] | None, count: int) -> dict[str, Any] | None:
    """Options of the vector environment from a dict for all images, or one for each."""
    if given is None or isinstance(given, dict):
        if given and np.ndim(given.get("index", [0])) == 0:
            return {**given, "index": np.full(count, given["index"])}
        return given
    fits = isinstance(given, (list, tuple)) and len(given) == count
    if not fits or any(not isinstance(each, dict) or set(each) != set(given[0]) for each in given):
        raise ValueError(f"options: got {given!r:.200}; a dict or {count} dicts with the same keys will do")
    return {name: np.array([each[name] for each in given]) for name in given[0]} or None


def _rows(info: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """A dict of arrays (and of such dicts) as a list of dicts, without Gymnasium's ``_key`` masks."""
    columns: dict[str, list[Any]] = {}
    for name, value in info.items():
        if isinstance(value, dict):
            columns[name] = _rows(value, count)
        elif not name.startswith("_"):
            columns[name] = value.tolist() if value.ndim == 1 else list(value)
    return [{name: column[i] for name, column in columns.items()} for i in range(count)]
