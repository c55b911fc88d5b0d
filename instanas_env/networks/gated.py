"""The meta-graph as a function of gates, through which gradients flow: every module for every image.

    y = x + sum_m g_m f_m(x) / max(1, sum_m g_m)      if the cell keeps its shape,
    y = sum_m g_m f_m(x) / max(1, sum_m g_m)          otherwise.

With gates of 0 and 1 this is :class:`instanas_env.networks.meta_graph.MetaGraph`, at the cost of all modules.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instanas_env.networks.meta_cell import MetaCell
from instanas_env.networks.meta_graph import MetaGraph


def gated_logits(meta_graph: MetaGraph, images: Tensor, gates: Tensor) -> Tensor:
    """Class logits of images whose modules' outputs are multiplied by gates.

    The divisor is part of the gradient where it exceeds 1, so that a gate is paid for the difference
    that its module makes to the mean. At 0 or 1 it is constant: a lone module's gate gets f_m itself.

    Args:
        meta_graph: in training mode its BatchNorm sees all images here, whatever their gates.
        images: float ``(B, 3, H, W)``, normalised.
        gates: float ``(B, num_cells, num_modules)``.

    Returns:
        float ``(B, num_classes)``.
    """
    x = meta_graph.stem(images)
    number = gates.sum(2, keepdim=True)
    shares = gates / torch.where(number > 1, number, 1.0)
    for t, cell in enumerate(meta_graph.cells):
        assert isinstance(cell, MetaCell)
        y = sum(option(x) * shares[:, t, m].view(-1, 1, 1, 1) for m, option in enumerate(cell.options))
        x = x + y if cell.keeps_shape else y
    return meta_graph.head(x)
