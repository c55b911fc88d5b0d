"""Costs that can be counted instead of measured, as look-up tables: MACs and parameters of each module."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace


def count_parameters(space: SearchSpace, num_classes: int) -> LatencyTable:
    """Parameters of each part, BatchNorm folded, in units of one parameter."""
    return _counted(
        space, num_classes, "parameters", lambda conv, size: conv.weight.numel() + conv.out_channels
    )


def count_macs(space: SearchSpace, num_classes: int) -> LatencyTable:
    """Multiply-accumulates of each part for one image, in millions."""
    return _counted(space, num_classes, "MMACs", lambda conv, size: conv.weight.numel() * size**2 / 1e6)


def _counted(
    space: SearchSpace, num_classes: int, unit: str, cost_of: Callable[[nn.Conv2d, int], float]
) -> LatencyTable:
    with torch.device("meta"):
        meta_graph = MetaGraph(space, num_classes)

    def cost(part: nn.Module, size: int) -> float:
        """The cost of all convolutions in ``part``, whose input is ``size`` px high; a stride shrinks it."""
        total = 0.0
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d):
                size //= layer.stride[0]
                total += cost_of(layer, size)
        return total

    last = space.cells[-1]
    linear = nn.Conv2d(space.head_channels, num_classes, 1, device="meta")  # as a 1x1 convolution of 1 px
    return LatencyTable(
        space=space,
        modules=torch.tensor(
            [
                [cost(option, spec.resolution) for option in cell.options]  # type: ignore[union-attr]
                for cell, spec in zip(meta_graph.cells, space.cells, strict=True)
            ],
            dtype=torch.float64,
        ),
        fixed=cost(meta_graph.stem, space.resolution)
        + cost(meta_graph.head, last.resolution // last.stride)
        + cost_of(linear, 1),
        unit=unit,
    )
