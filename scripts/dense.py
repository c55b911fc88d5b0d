"""The released design, written plainly: every module for every image, times 0 or 1.

Slow on purpose. ``scripts.bench`` measures against it, and the tests compare results with it.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from instanas_env.meta_graph import MetaCell, MetaGraph


class DenseMetaGraph(nn.Module):
    """The function of a :class:`MetaGraph`, at the cost of all its modules.

    Args:
        meta_graph: copied; in training mode this form's BatchNorm sees all images, masked-out ones too.
        memory_format: ``torch.contiguous_format`` (NCHW, as released) or ``torch.channels_last``.
    """

    def __init__(self, meta_graph: MetaGraph, memory_format: torch.memory_format = torch.contiguous_format):
        super().__init__()
        self.memory_format = memory_format
        copied = copy.deepcopy(meta_graph).to(memory_format=memory_format)
        self.stem, self.cells, self.head = copied.stem, copied.cells, copied.head

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """As :meth:`MetaGraph.forward`."""
        x = self.stem(images.contiguous(memory_format=self.memory_format))
        for t, cell in enumerate(self.cells):
            assert isinstance(cell, MetaCell)
            switches = masks[:, t].to(x.dtype)
            share = switches / switches.sum(1, keepdim=True).clamp(min=1)
            y = sum(option(x) * share[:, m].view(-1, 1, 1, 1) for m, option in enumerate(cell.options))
            x = x + y if cell.keeps_shape else y
        return self.head(x)
