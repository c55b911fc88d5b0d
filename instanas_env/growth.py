"""Growing a trained network: modules that it has not used yet join it without disturbing it.

A cell that keeps its shape adds its modules to its input, so a module that gives next to nothing changes next
to nothing: the last BatchNorm starts near zero, as in the zero-initialised residuals of Goyal et al. (2017).
Not at zero, where the ReLU6 at a BasicConv's end would let no gradient through.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instanas_env.meta_graph import MetaGraph
from instanas_env.modules import ConvBN

QUIET = 0.1  # of the scale that a BatchNorm starts with


@torch.no_grad()
def quieten(meta_graph: MetaGraph, modules: Tensor) -> None:
    """Let modules start near zero.

    Args:
        meta_graph: changed in place.
        modules: which, bool ``(num_cells, num_modules)``. Of a cell that changes shape, which has nothing but
            its modules' outputs, they stay as they are.
    """
    for cell, chosen in zip(meta_graph.cells, modules.tolist(), strict=True):
        for option, on in zip(cell.options, chosen, strict=True):
            if on and cell.keeps_shape:
                last = option[-1]
                assert isinstance(last, ConvBN)
                last.bn.weight.fill_(QUIET)
                last.bn.bias.zero_()
