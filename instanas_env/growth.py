"""Growing a trained network: modules that it has not used yet join it without disturbing it.

A cell that keeps its shape adds its modules to its input, so a module that gives next to nothing changes next
to nothing: the last BatchNorm starts near zero, as in the zero-initialised residuals of Goyal et al. (2017).
Not at zero, where the ReLU6 at a BasicConv's end would let no gradient through.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instanas_env.meta_cell import MetaCell
from instanas_env.meta_graph import MetaGraph

QUIET = 0.1  # of the scale that a BatchNorm starts with


@torch.no_grad()
def quieten(meta_graph: MetaGraph, modules: Tensor) -> None:
    """Let modules start near zero.

    Args:
        meta_graph: changed in place.
        modules: which, bool ``(num_cells, num_modules)``. Of a cell that changes shape, which has nothing but
            its modules' outputs, they stay as they are.
    """
    for number, module in modules.nonzero().tolist():
        cell = meta_graph.cells[number]
        assert isinstance(cell, MetaCell)
        if cell.keeps_shape:
            batch_norm = cell.options[module][-1].bn
            batch_norm.weight.fill_(QUIET)
            batch_norm.bias.zero_()
