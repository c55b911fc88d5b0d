"""Two kinds of image, dark and bright, for toys whose optimum depends on which it is."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import torch
from torch import Tensor

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.learning import LearningAgent
from instanas_env.seeding import generator_for

NUM_IMAGES = 64


def dark_and_bright_envs(num_envs: int) -> gym.vector.VectorEnv:
    """The real environment with noisy grey images, dark and bright in turn, all of class 0."""
    envs = gym.make_vec("InstaNAS-v1", num_envs=num_envs, split="val")
    bandit = envs.unwrapped.bandit  # type: ignore[attr-defined]
    brightness = torch.tensor([60, 190]).repeat(NUM_IMAGES // 2).reshape(-1, 1, 1, 1)
    noise = torch.randint(-40, 41, (NUM_IMAGES, 3, 32, 32), generator=generator_for(1))
    images = (brightness + noise).to(torch.uint8)
    bandit.image_set = replace(bandit.image_set, images=images, labels=torch.zeros(NUM_IMAGES).long())
    return envs


def are_bright(images: Tensor) -> Tensor:
    """Which of ``(B, 3, H, W)`` are bright, bool ``(B,)``."""
    return images.float().mean((1, 2, 3)) > 127


def flat_weights(agent: LearningAgent) -> Tensor:
    """All of an agent's weights in a row."""
    return torch.cat([tensor.flatten() for tensor in agent.controller.state_dict().values()])
