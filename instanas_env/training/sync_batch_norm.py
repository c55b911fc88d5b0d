"""BatchNorm over the images of all processes, so that what is learnt does not depend on how many there are.

A module of the meta-graph is chosen by a fraction of a batch; a process alone would normalise over a few
images, or over one. PyTorch's own SyncBatchNorm runs on GPUs only and does not take an empty batch; here a
process without an image for a module takes part with none.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Exchange(Protocol):
    """What BatchNorm needs of the processes that train together (:class:`.distributed.World`)."""

    def gather(self, part: Tensor) -> Tensor:
        """The parts ``(1, n)`` of all processes, ``(processes, n)``."""

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes."""


class SyncBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm that shares the parameters and the statistics of ``source``.

    While training it normalises over the images that all processes of ``world`` give it: every one of them
    must call it, in the same order, be it with none ``(0, C, H, W)``. One of them must have an image.
    """

    def __init__(self, source: nn.BatchNorm2d, world: Exchange):
        super().__init__(source.num_features, source.eps, source.momentum)
        self.world = world
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(source, name))
        self.train(source.training)

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape; B differs between processes."""
        if not self.training:
            return super().forward(input)
        output, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.world, self.eps)  # type: ignore[no-untyped-call]
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)
        return output


class _Normalise(torch.autograd.Function):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, statistics over all processes.

    With N values of a channel in all, x' the normalised x and g the gradient of y, the gradient of x is
    weight / sqrt(variance + eps) * (g - sum g / N - x' sum(g x') / N), both sums over all processes.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, world: Exchange, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """y, and the mean ``(C,)``, variance ``(C,)`` and count of all processes' values of a channel."""
        size = x.numel() // len(weight)
        own = x.new_zeros(1, 1 + 2 * len(weight))
        if size:
            var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            own = torch.cat([x.new_tensor([size]), mean, size * var])[None]
        counts, means, squares = world.gather(own).split([1, len(weight), len(weight)], 1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (squares + counts * (means - mean) ** 2).sum(0) / count
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count)
        ctx.world = world
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # type: ignore[override]
        """The gradients of x, weight and bias; those of a parameter are this process's share."""
        x, weight, mean, scale, count = ctx.saved_tensors
        g = gradients[0]
        normalised = (x - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1)
        of_bias, of_weight = g.sum((0, 2, 3)), (g * normalised).sum((0, 2, 3))
        means = ctx.world.sum(torch.stack([of_bias, of_weight])) / count
        shift, slope = means.view(2, -1, 1, 1)
        of_x = (weight * scale).view(-1, 1, 1) * (g - shift - normalised * slope)
        return of_x, of_weight, of_bias, None, None


def synchronise(module: nn.Module, world: Exchange) -> None:
    """Replace every BatchNorm in ``module`` by one over all processes, in place; the names stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and not isinstance(child, SyncBatchNorm2d):
            setattr(module, name, SyncBatchNorm2d(child, world))
        else:
            synchronise(child, world)
