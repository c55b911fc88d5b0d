"""One cell of the meta-graph (section 3.2): each module for the images that chose it, and for no others.

A cell's output is

    y = x + mean of the selected modules' outputs      if the cell keeps its shape (x alone if empty),
    y = mean of the selected modules' outputs          otherwise.

BatchNorm while training normalises over the images that chose the module, and a module that nobody in
the batch chose is left alone: a module never sees an image that is not its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from instanas_env.cells import CellSpec, ModuleSpec
from instanas_env.networks.modules import build_module

# oneDNN compiles a kernel for every shape it meets and keeps the last 1,024. Sub-batches come in all
# sizes, times 85 modules: with room for all of them training is up to 1.6 times as fast. Read by oneDNN
# at its first use, so it must be set before any convolution has run.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "65536")

# A module's maps stay in a CPU's cache from one layer to the next if it is given no more images at a time
# than have this much in its widest map.
CACHE_BYTES = 8 * 2**20


def _rows(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` in channels_last memory as ``(B, H * W * C)``, without copying."""
    return x.permute(0, 2, 3, 1).flatten(1)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """``x[index]`` along the batch; keeps channels_last, which ``index_select`` alone does not."""
    _, channels, height, width = x.shape
    return _rows(x).index_select(0, index).view(len(index), height, width, channels).permute(0, 3, 1, 2)


class MetaCell(nn.Module):
    """One cell: ``options[m]`` is module m; computes the mean of those each image selected."""

    def __init__(self, cell: CellSpec, modules: Sequence[ModuleSpec]):
        super().__init__()
        self.options = nn.ModuleList(build_module(module, cell) for module in modules)
        self.limits = [_images_at_a_time(module, cell) for module in modules]
        self.out_channels = cell.out_channels
        self.out_resolution = cell.resolution // cell.stride
        self.keeps_shape = cell.keeps_shape

    def forward(
        self,
        x: Tensor,
        indices: Sequence[Tensor],
        share: Tensor | None,
        elsewhere: Sequence[bool] | None = None,
    ) -> Tensor:
        """Run the cell.

        Args:
            x: ``(B, C_in, H, W)``, channels_last.
            indices: for each module, the batch positions ``(n,)`` of the images that chose it.
            share: ``(B,)``, one over the number of modules each image chose (any value where none); None
                where nobody chose two.
            elsewhere: for each module, whether it runs even if no image here chose it: then without any.

        Returns:
            ``(B, C_out, H / stride, W / stride)``, channels_last.
        """
        whole = self.training or x.device.type != "cpu"  # BatchNorm normalises over all that chose the module
        total: Tensor | None = None
        always = [False] * len(self.options) if elsewhere is None else elsewhere
        for option, index, limit, empty in zip(self.options, indices, self.limits, always, strict=True):
            size = max(1, len(index)) if whole else limit
            if len(index) == len(x):
                parts = [option(part) for part in x.split(size)]
                output = _rows(parts[0] if len(parts) == 1 else torch.cat(parts))
                total = output if total is None else total.add_(output)
                continue
            for part in index.split(size) if len(index) or empty else ():
                output = _rows(option(_take(x, part)))
                if total is None:
                    total = output.new_zeros(len(x), output.shape[1])
                total.index_add_(0, part, output)
        if total is None:
            total = x.new_zeros(len(x), self.out_channels * self.out_resolution**2)
        if share is not None:
            total.mul_(share.to(total.dtype).unsqueeze(1))
        if self.keeps_shape:
            total.add_(_rows(x))
        shape = (-1, self.out_resolution, self.out_resolution, self.out_channels)
        return total.view(shape).permute(0, 3, 1, 2)


def _images_at_a_time(module: ModuleSpec, cell: CellSpec) -> int:
    """The number of images that take ``CACHE_BYTES`` in the module's widest map."""
    channels = max(cell.in_channels * module.expansion, cell.out_channels)
    return max(1, CACHE_BYTES // (4 * channels * cell.resolution**2))
