"""The network of reward regression: the paper's controller with other outputs, and the prices of its arms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agents.controller import Controller
from instanas_env.deploy.onnx_graph import OnnxGraph
from instanas_env.search_space import SearchSpace


class RegressionController(nn.Module):
    """The paper's controller with other outputs: b(x) ``(B,)``, w(x) ``(B, arms)``, classes ``(B, C)``.

    ``latencies`` ``(arms,)`` are the arms' ms and ``fixed_ms`` those of what every network has, kept with the
    weights: a policy belongs to a table.
    """

    latencies: Tensor
    fixed_ms: Tensor

    def __init__(self, space: SearchSpace, arms: int, num_classes: int, generator: torch.Generator):
        super().__init__()
        self.sizes = [arms, num_classes]
        self.network = Controller(space, outputs=1 + arms + num_classes, generator=generator)
        self.register_buffer("latencies", torch.ones(arms))
        self.register_buffer("fixed_ms", torch.zeros(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 ``(B, 3, H, W)`` to b, w and the logits of the classes."""
        outputs = self.network(images)
        gains, classes = outputs[:, 1:].split(self.sizes, 1)
        return outputs[:, 0], gains, classes

    def to_onnx(self, graph: OnnxGraph, images: str) -> str:
        """Write the folded controller into a graph: b, w and the classes side by side."""
        return graph.network(self.network, images)
