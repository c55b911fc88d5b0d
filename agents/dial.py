"""The dial of reward regression: the lambda at which a policy's networks take a given mean latency.

The larger lambda, the faster the networks; so bisection finds it, on its logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.arms import Arms

TRADE_OFFS = (1e-4, 1e3)  # the ends of the dial
BISECTIONS = 30
MARGIN = 0.01  # of the range of latencies, at either end


def trade_off_at(mean_ms: Callable[[float], float], latency_ms: float) -> float:
    """The lambda at which ``mean_ms``, which falls with it, is ``latency_ms``, or next to that.

    A latency beyond reach counts as one just within it; lambdas further out would have no effect.

    Args:
        mean_ms: mean latency of a policy, ms, at a lambda.
        latency_ms: wanted.
    """
    slowest, fastest = (mean_ms(end) for end in TRADE_OFFS)
    margin = MARGIN * (slowest - fastest)
    target = min(max(latency_ms, fastest + margin), slowest - margin)
    low, high = (math.log(end) for end in TRADE_OFFS)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_ms(math.exp(middle)) > target else (low, middle)
    return math.exp((low + high) / 2)


@dataclass(frozen=True)
class Priced:
    """Arms and what they cost: which of them are worth it at a lambda, the logits that a ms must bring.

    Attributes:
        arms: what there is to choose from.
        latencies: of the arms, ms ``(arms,)``.
        fixed_ms: what every network takes besides, ``()``.
    """

    arms: Arms
    latencies: Tensor
    fixed_ms: Tensor

    def choices(self, gains: Tensor, trade_offs: Tensor) -> Tensor:
        """Choices bool ``(B, arms)`` from gains w(x) ``(B, arms)`` and lambdas ``(B,)`` or one."""
        return self.arms.best(gains - trade_offs.reshape(-1, 1) * self.latencies)

    def mean_ms(self, gains: Tensor, trade_off: float) -> float:
        """Mean latency of the networks that are chosen."""
        choices = self.choices(gains, torch.tensor(trade_off))
        return ((choices * self.latencies).sum(1).mean() + self.fixed_ms).item()

    def trade_off_at(self, gains: Tensor, latency_ms: float) -> float:
        """The lambda at which they take ``latency_ms`` on average."""
        return trade_off_at(lambda trade_off: self.mean_ms(gains, trade_off), latency_ms)

    def spread(self, gains: Tensor, latencies: tuple[float, float], generator: torch.Generator) -> Tensor:
        """Choices at lambdas drawn for each image between those of two mean latencies."""
        fast, slow = (math.log(self.trade_off_at(gains, latency)) for latency in latencies)
        draws = torch.rand(len(gains), generator=generator)
        return self.choices(gains, torch.exp(slow + (fast - slow) * draws))
