"""The released design, written plainly: every module for every image, times 0 or 1.

Slow on purpose. `instanas bench` measures against it, and the tests compare results with it.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from instanas_env.networks.gated import gated_logits
from instanas_env.networks.meta_graph import MetaGraph


class DenseMetaGraph(nn.Module):
    """The function of a :class:`MetaGraph`, at the cost of all its modules.

    Args:
        meta_graph: copied; in training mode this form's BatchNorm sees all images, masked-out ones too.
        memory_format: ``torch.contiguous_format`` (NCHW, as released) or ``torch.channels_last``.
    """

    def __init__(self, meta_graph: MetaGraph, memory_format: torch.memory_format = torch.contiguous_format):
        super().__init__()
        self.memory_format = memory_format
        self.meta_graph = copy.deepcopy(meta_graph).to(memory_format=memory_format)

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """As :meth:`MetaGraph.forward`."""
        images = images.contiguous(memory_format=self.memory_format)
        return gated_logits(self.meta_graph, images, masks.to(images.dtype))
