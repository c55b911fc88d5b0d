"""Any object with Stable-Baselines3's ``predict`` as an agent that gives masks: what a comparison takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from agents.agent import Agent
from instanas_env import checks
from instanas_env.search_space import SearchSpace


class Predicting(Agent):
    """A policy of anybody's, asked through ``predict(observation, deterministic=...) -> (actions, state)``.

    Args:
        space: the search space.
        policy: gives actions ``(B, num_bits)`` of zeros and ones for images uint8 ``(B, 3, H, W)``.
    """

    def __init__(self, space: SearchSpace, policy: Any):
        super().__init__(space)
        self.policy = policy
        self.controller = nn.Identity()  # it looks at the image: its time counts as the controller's does

    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """What the policy predicts; ``ValueError`` if it does not give one action for each image."""
        actions, _ = self.policy.predict(images.numpy(), deterministic=deterministic)
        if checks.shape("actions", actions) != (len(images), self.space.num_bits):
            raise ValueError(
                f"policy: {type(self.policy).__name__}.predict gave actions of shape"
                f" {checks.shape('actions', actions)} for {len(images)} images;"
                f" {(len(images), self.space.num_bits)} will do"
            )
        bits = checks.whole_numbers("actions", torch.as_tensor(actions), 1).bool()
        return bits.view(len(images), self.space.num_cells, self.space.num_modules)
