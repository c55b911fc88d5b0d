"""Exploration of the mask space (section 3.3): p', the Bernoulli sample, and the greedy mask."""

from __future__ import annotations

import torch
from torch import Tensor


def encourage(probabilities: Tensor, alpha: float) -> Tensor:
    """p' = alpha p + (1 - alpha)(1 - p): mixes in the opposite choice, so that no bit is ever certain.

    Args:
        probabilities: p, any shape.
        alpha: in [1/2, 1]; 1 leaves p as it is, 1/2 forgets it.
    """
    return alpha * probabilities + (1 - alpha) * (1 - probabilities)


def sample(probabilities: Tensor, generator: torch.Generator, count: int | None = None) -> Tensor:
    """Independent Bernoulli bits, bool of the shape of ``probabilities``, or ``(count, *shape)``."""
    shape = probabilities.shape if count is None else (count, *probabilities.shape)
    return torch.rand(shape, generator=generator) < probabilities.cpu()


def greedy(probabilities: Tensor) -> Tensor:
    """p~: 1 where p > 1/2, else 0 (bool)."""
    return probabilities > 0.5


def linear_schedule(first: float, last: float, progress: float) -> float:
    """A value that goes linearly from ``first`` at progress 0 to ``last`` at progress 1."""
    return first + (last - first) * min(1.0, max(0.0, progress))
