"""The network of reward regression: the paper's controller with other outputs, and the prices of its arms."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from agents.arms import Arms
from agents.controller import Controller
from instanas_env.deploy.onnx_graph import OnnxGraph
from instanas_env.search_space import SearchSpace

TRADE_OFFS = (1e-6, 1e3)  # the ends of the dial
BISECTIONS = 30
MARGIN = 0.01  # of the range of latencies, at either end


class RegressionController(nn.Module):
    """The paper's controller with other outputs: b(x) ``(B,)``, w(x) ``(B, arms)``, classes ``(B, C)``.

    It also tells which arms are worth it at a lambda, the P(correct) that a ms must bring. ``latencies``
    ``(arms,)`` are the arms' ms and ``fixed_ms`` those of what every network has, kept with the weights: a
    policy belongs to a table.
    """

    latencies: Tensor
    fixed_ms: Tensor

    def __init__(self, space: SearchSpace, arms: Arms, num_classes: int, generator: torch.Generator):
        super().__init__()
        self.arms = arms
        self.sizes = [arms.count, num_classes]
        self.network = Controller(space, outputs=1 + sum(self.sizes), generator=generator)
        self.register_buffer("latencies", torch.ones(arms.count))
        self.register_buffer("fixed_ms", torch.zeros(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 ``(B, 3, H, W)`` to b, w and the logits of the classes."""
        outputs = self.network(images)
        gains, classes = outputs[:, 1:].split(self.sizes, 1)
        return outputs[:, 0], gains, classes

    @torch.no_grad()
    def worth(self, images: Tensor) -> Tensor:
        """What each arm adds to P(correct) of uint8 images, ``(B, arms)``, see :meth:`Arms.worth`."""
        base, gains, _ = self.eval()(images)
        return self.arms.worth(base, gains)

    def to_onnx(self, graph: OnnxGraph, images: str) -> str:
        """Write the folded controller into a graph: b, w and the classes side by side."""
        return graph.network(self.network, images)

    def choices(self, worth: Tensor, trade_offs: Tensor) -> Tensor:
        """Choices bool ``(B, arms)`` from what arms are worth, ``(B, arms)``, and lambdas ``(B,)`` or one."""
        return self.arms.best(worth - trade_offs.reshape(-1, 1) * self.latencies)

    def trade_off_at(self, worth: Tensor, latency_ms: float) -> float:
        """The lambda at which the chosen networks take ``latency_ms`` on average."""

        def mean_ms(trade_off: float) -> float:
            choices = self.choices(worth, torch.tensor(trade_off))
            return ((choices * self.latencies).sum(1).mean() + self.fixed_ms).item()

        return trade_off_at(mean_ms, latency_ms)

    def spread(self, worth: Tensor, latencies: tuple[float, float], generator: torch.Generator) -> Tensor:
        """Choices at lambdas drawn for each image between those of two mean latencies."""
        fast, slow = (math.log(self.trade_off_at(worth, latency)) for latency in latencies)
        draws = torch.rand(len(worth), generator=generator)
        return self.choices(worth, torch.exp(slow + (fast - slow) * draws))


def trade_off_at(mean_ms: Callable[[float], float], latency_ms: float) -> float:
    """The lambda at which ``mean_ms``, which falls with it, is ``latency_ms``, or next to that.

    The larger lambda, the faster the networks; so bisection finds it, on its logarithm.
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
