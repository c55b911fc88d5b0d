"""The network of reward regression: the paper's controller with other outputs, and the prices of its arms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agents.controller import Controller
from instanas_env.search_space import SearchSpace


class RegressionController(nn.Module):
    """The paper's controller with other outputs: b(x) ``(B,)``, w(x) ``(B, arms)``, classes ``(B, C)``.

    With ``class_gains`` w_i(x) = u_i(x) + sum_c P(c | x) v_ci: beside an output of its own an arm has what it
    is worth to each class, of which there is more to learn from. ``latencies`` ``(arms,)`` are the arms' ms
    and ``fixed_ms`` those of stem and head, kept with the weights: a policy belongs to a table.
    """

    latencies: Tensor
    fixed_ms: Tensor

    def __init__(
        self,
        space: SearchSpace,
        arms: int,
        num_classes: int,
        generator: torch.Generator,
        class_gains: bool = False,
    ):
        super().__init__()
        self.sizes = [arms, num_classes]
        self.network = Controller(space, outputs=1 + arms + num_classes, generator=generator)
        self.by_class = nn.Parameter(torch.zeros(num_classes, arms)) if class_gains else None
        self.register_buffer("latencies", torch.ones(arms))
        self.register_buffer("fixed_ms", torch.zeros(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 ``(B, 3, H, W)`` to b, w and the logits of the classes."""
        outputs = self.network(images)
        gains, classes = outputs[:, 1:].split(self.sizes, 1)
        if self.by_class is not None:  # the names are learnt from labels alone
            gains = gains + classes.detach().softmax(1) @ self.by_class
        return outputs[:, 0], gains, classes
