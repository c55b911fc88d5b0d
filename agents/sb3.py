"""Stable-Baselines3 on this environment: a features extractor for small images, and a VecEnv adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.agent import native
from agents.controller import Controller
from instanas_env.seeding import generator_for


class ControllerFeatures(BaseFeaturesExtractor):
    """The controller's convolutions as features; SB3's NatureCNN does not fit 32 x 32 images.

    Use it with ``policy_kwargs=dict(features_extractor_class=ControllerFeatures, normalize_images=False)``:
    the controller scales images itself.
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 128, seed: int = 0):
        super().__init__(observation_space, features_dim)
        from instanas_env.search_space import SearchSpace

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


class NativeVecEnv(VecEnv):
    """The native vector environment as an SB3 ``VecEnv``: one batched forward a step. Wrap in ``VecMonitor``.

    Args:
        envs: from ``gym.make_vec("InstaNAS-v1", num_envs=...)`` in its default mode, SAME_STEP.
    """

    def __init__(self, envs: gym.vector.VectorEnv):
        inner = native(envs)
        if inner.autoreset_mode is not gym.vector.AutoresetMode.SAME_STEP:
            raise ValueError(f"envs: got autoreset_mode {inner.autoreset_mode}; SAME_STEP will do")
        self.envs = inner
        self.render_mode = inner.render_mode
        super().__init__(inner.num_envs, inner.single_observation_space, inner.single_action_space)

    def reset(self) -> np.ndarray:
        """The next images; honours ``seed()``."""
        seed = self._seeds[0]
        self._reset_seeds()
        observation, info = self.envs.reset(seed=seed)
        self.reset_infos = _rows(info, self.num_envs)
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """One step; ``terminal_observation`` and the step's results are in the infos, as SB3 has it."""
        observation, reward, terminated, _, info = self.envs.step(self._actions)
        infos = _rows(info["final_info"], self.num_envs)
        for row, image in zip(infos, info["final_obs"], strict=True):
            row["terminal_observation"] = image
            row["TimeLimit.truncated"] = False
        return observation, reward.astype(np.float32), terminated, infos

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.envs, attr_name)] * len(self._positions(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of the one environment behind all; its answer stands for each."""
        return [getattr(self.envs, method_name)(*args, **kwargs)] * len(self._positions(indices))

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * len(self._positions(indices))

    def get_images(self) -> Sequence[np.ndarray | None]:
        return self.envs.render() or [None] * self.num_envs

    def _positions(self, indices: Any) -> list[int]:
        return list(self._get_indices(indices))


def _rows(info: dict[str, np.ndarray], count: int) -> list[dict[str, Any]]:
    """A dict of arrays as a list of dicts."""
    columns = {name: value.tolist() if value.ndim == 1 else list(value) for name, value in info.items()}
    return [{name: column[i] for name, column in columns.items()} for i in range(count)]
