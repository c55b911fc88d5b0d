"""Gymnasium's own vector wrappers around the native environment, in each mode that Gymnasium allows."""

from __future__ import annotations

from functools import cache

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import wrappers as scalar
from gymnasium.wrappers import vector

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from tests.tools.scratch import SCRATCH

N = 3
MODES = ("SameStep", "NextStep", "Disabled")

OF_OBSERVATIONS = {
    "transform": lambda envs: vector.TransformObservation(envs, np.copy),
    "vectorized": lambda envs: vector.VectorizeTransformObservation(
        envs, scalar.TransformObservation, func=np.copy, observation_space=None
    ),
    "flatten": vector.FlattenObservation,
    "grey": vector.GrayscaleObservation,
    "reshape": lambda envs: vector.ReshapeObservation(envs, (96, 32)),
    "resize": lambda envs: vector.ResizeObservation(envs, (16, 16)),
    "rescale": lambda envs: vector.RescaleObservation(
        vector.DtypeObservation(envs, np.float32), np.float32(0), np.float32(1)
    ),
    "dtype": lambda envs: vector.DtypeObservation(envs, np.float32),
    "normalize": vector.NormalizeObservation,
}
OTHERS = {
    "action": lambda envs: vector.TransformAction(envs, lambda actions: 1 - actions),
    "vectorized action": lambda envs: vector.VectorizeTransformAction(
        envs, scalar.TransformAction, func=lambda action: 1 - action, action_space=None
    ),
    "reward": lambda envs: vector.TransformReward(envs, lambda reward: 2 * reward),
    "vectorized reward": lambda envs: vector.VectorizeTransformReward(
        envs, scalar.TransformReward, func=lambda reward: 2 * reward
    ),
    "clip reward": lambda envs: vector.ClipReward(envs, -0.5, 0.5),
    "normalize reward": vector.NormalizeReward,
    "statistics": vector.RecordEpisodeStatistics,
    "infos": vector.DictInfoToList,
    "torch": lambda envs: vector.NumpyToTorch(envs),
    "array": lambda envs: vector.ArrayConversion(envs, np, torch),
}


def play(envs, bits) -> list[np.ndarray]:
    """Two episodes; the reset and the spare step that a mode asks for are there. The observations seen."""
    mode = envs.unwrapped.autoreset_mode.value
    seen = [envs.reset(seed=0)[0]]
    for _ in range(2):
        observation, reward, terminated, truncated, _ = envs.step(bits)
        assert len(reward) == N and terminated.all() and not truncated.any()
        if mode == "NextStep":
            observation = envs.step(bits)[0]
        elif mode == "Disabled":
            observation = envs.reset(options={"reset_mask": np.ones(N, bool)})[0]
        seen.append(observation)
    return seen


@cache
def envs_of(mode: str) -> gym.vector.VectorEnv:
    """One for all tests: each begins with a seed."""
    return gym.make_vec(
        "InstaNAS-v1", num_envs=N, autoreset_mode=mode, layout="HWC", render_mode="rgb_array", **SCRATCH
    )


NEEDS = {"resize": "cv2", "torch": "array_api_compat", "array": "array_api_compat"}
REFUSED = {name: ("SameStep",) for name in OF_OBSERVATIONS} | {"normalize": ("SameStep", "Disabled")}
"""By Gymnasium itself, with every environment."""
ONLY_WITHOUT_OBJECTS = ("torch", "array")
"""PyTorch takes no array of objects, as ``final_obs`` of SAME_STEP is with every environment."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", {**OF_OBSERVATIONS, **OTHERS})
def test_wrappers_work_where_gymnasium_allows_them(name, mode):
    """What comes lies in the space that the wrapper says."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    wrap = {**OF_OBSERVATIONS, **OTHERS}[name]
    bits = np.zeros((N, 85), np.int8)
    if mode in REFUSED.get(name, ()):
        with pytest.raises(ValueError, match="autoreset_mode"):
            play(wrap(envs_of(mode)), bits)
    elif name in ONLY_WITHOUT_OBJECTS and mode == "SameStep":
        with pytest.raises(BufferError):
            play(wrap(envs_of(mode)), torch.from_numpy(bits))
    else:
        envs = wrap(envs_of(mode))
        actions = torch.from_numpy(bits) if name in ONLY_WITHOUT_OBJECTS else bits
        for observation in play(envs, actions):
            assert observation.shape == envs.observation_space.shape
            assert name in ONLY_WITHOUT_OBJECTS or observation.dtype == envs.observation_space.dtype


@pytest.mark.parametrize("mode", ("NextStep", "Disabled"))
def test_videos(mode, tmp_path):
    pytest.importorskip("moviepy")
    play(vector.RecordVideo(envs_of(mode), str(tmp_path), video_length=2), np.zeros((N, 85), np.int8))
    assert list(tmp_path.glob("*.mp4"))
