"""The meta-graph (section 3.2): one set of weights for all child networks, at the cost of the chosen one.

For each cell and module, only the images that chose the module pass through it. A cell's output is

    y = x + mean of the selected modules' outputs      if the cell keeps its shape (x alone if empty),
    y = mean of the selected modules' outputs          otherwise.

BatchNorm while training normalises over the images that chose the module, and a module that nobody in
the batch chose is left alone: a module never sees an image that is not its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instanas_env.modules import ConvBN, FoldedConv, build_module, fold_batch_norm
from instanas_env.search_space import CellSpec, ModuleSpec, SearchSpace
from instanas_env.storage import PathLike, load_weights, save_weights

# oneDNN compiles a kernel for every shape it meets and keeps the last 1,024. Sub-batches come in all
# sizes, times 85 modules: with room for all of them training is up to 1.6 times as fast. Read by oneDNN
# at its first use, so it must be set before any convolution has run.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "65536")

# A module's maps stay in a CPU's cache from one layer to the next if it is given no more images at a time
# than have this much in its widest map.
CACHE_BYTES = 8 * 2**20


def _rows(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` in channels_last memory as ``(B, H * W * C)``, without copying."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """``x[index]`` along the batch; keeps channels_last, which ``index_select`` alone does not."""
    _, channels, height, width = x.shape
    return _rows(x).index_select(0, index).view(-1, height, width, channels).permute(0, 3, 1, 2)


class MetaCell(nn.Module):
    """One cell: ``options[m]`` is module m; computes the mean of those each image selected."""

    def __init__(self, cell: CellSpec, modules: Sequence[ModuleSpec]):
        super().__init__()
        self.options = nn.ModuleList(build_module(module, cell) for module in modules)
        self.limits = [_images_at_a_time(module, cell) for module in modules]
        self.out_channels = cell.out_channels
        self.out_resolution = cell.resolution // cell.stride
        self.keeps_shape = cell.keeps_shape

    def forward(self, x: Tensor, indices: Sequence[Tensor], share: Tensor | None) -> Tensor:
        """Run the cell.

        Args:
            x: ``(B, C_in, H, W)``, channels_last.
            indices: for each module, the batch positions ``(n,)`` of the images that chose it.
            share: ``(B,)``, one over the number of modules each image chose (any value where none); None
                where nobody chose two.

        Returns:
            ``(B, C_out, H / stride, W / stride)``, channels_last.
        """
        whole = self.training or x.device.type != "cpu"  # BatchNorm normalises over all that chose the module
        total: Tensor | None = None
        for option, index, limit in zip(self.options, indices, self.limits, strict=True):
            size = max(1, len(index)) if whole else limit
            if len(index) == len(x):
                parts = [option(part) for part in x.split(size)]
                output = _rows(parts[0] if len(parts) == 1 else torch.cat(parts))
                total = output if total is None else total.add_(output)
                continue
            for part in index.split(size) if len(index) else ():
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
    """As many as have ``CACHE_BYTES`` in the widest map of the module."""
    channels = max(cell.in_channels * module.expansion, cell.out_channels)
    return max(1, CACHE_BYTES // (4 * channels * cell.resolution**2))


class MetaGraph(nn.Module):
    """All child networks of a search space in one set of weights.

    Args:
        space: the search space.
        num_classes: length of the logits.
        generator: draws the initial weights; None means a fresh one seeded with 0.

    Attributes:
        stem: ``(B, 3, H, W)`` to the first cell's input.
        cells: ``cells[t].options[m]`` is module m of cell t.
        head: everything after the cells, to logits ``(B, num_classes)``.
    """

    def __init__(self, space: SearchSpace, num_classes: int, generator: torch.Generator | None = None):
        super().__init__()
        self.space = space
        self.num_classes = num_classes
        with torch.random.fork_rng(devices=[]):  # PyTorch's own initialisation draws from the global one
            self.stem = ConvBN(3, space.stem_channels, 3, space.stem_stride)
            self.cells = nn.ModuleList(MetaCell(cell, space.modules) for cell in space.cells)
            self.head = nn.Sequential(
                ConvBN(space.cells[-1].out_channels, space.head_channels, 1),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(space.head_channels, num_classes),
            )
        initialise(self, generator or torch.Generator().manual_seed(0))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """Class logits of each image under its own child network.

        Args:
            images: float ``(B, 3, H, W)``, normalised.
            masks: bool ``(B, num_cells, num_modules)`` on any device, or ``(K, B, ...)`` for K masks of
                each image, which then share the stem. Not repaired here: an empty cell that changes shape
                gives zeros.

        Returns:
            float ``(B, num_classes)`` or ``(K, B, num_classes)``.
        """
        self._check(images, masks)
        masks = (
            masks.cpu()
        )  # one copy to the host and one back in all, so that a GPU never waits in the cells
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        if masks.ndim == 4:
            x = torch.cat([x] * len(masks))
        rows = masks.flatten(0, -3)
        chosen = rows.permute(1, 2, 0)
        counts = chosen.sum(2).flatten().tolist()
        indices = chosen.nonzero()[:, 2].to(x.device, non_blocking=True).split(counts)
        numbers = rows.sum(2)
        several = (numbers > 1).any(0).tolist()
        shares = (1.0 / numbers.clamp(min=1)).to(x.device, non_blocking=True)
        for t, cell in enumerate(self.cells):
            start = t * self.space.num_modules
            share = shares[:, t] if several[t] else None
            x = cell(x, indices[start : start + self.space.num_modules], share)
        return self.head(x).unflatten(0, masks.shape[:-2])

    def _check(self, images: Tensor, masks: Tensor) -> None:
        side = self.space.resolution
        if images.ndim != 4 or len(images) == 0 or tuple(images.shape[1:]) != (3, side, side):
            raise ValueError(f"images: got shape {tuple(images.shape)}; (B, 3, {side}, {side}) will do")
        expected = (len(images), self.space.num_cells, self.space.num_modules)
        if masks.dtype != torch.bool or tuple(masks.shape[-3:]) != expected or masks.ndim not in (3, 4):
            got = f"{masks.dtype} {tuple(masks.shape)}"
            raise ValueError(f"masks: got {got}; torch.bool {expected} will do for these images")

    def folded(self) -> MetaGraph:
        """A copy for evaluation, BatchNorm folded into the convolutions; gives the same logits, faster."""
        folded = fold_batch_norm(self)
        assert isinstance(folded, MetaGraph)
        return folded

    def save(self, path: PathLike, record: dict[str, Any] | None = None) -> None:
        """Write the weights as safetensors; ``record`` (JSON-able: how they were made) goes with them."""
        if isinstance(self.stem, FoldedConv):
            raise ValueError("save: BatchNorm is folded into these weights; save the graph they came from")
        config = {"search_space": self.space.config, "num_classes": self.num_classes, "record": record}
        weights = {n: t for n, t in self.state_dict().items() if not n.endswith("num_batches_tracked")}
        save_weights(path, weights, config)

    @classmethod
    def load(cls, path: PathLike) -> MetaGraph:
        """Read a meta-graph in evaluation mode; ``ValueError`` if the file is not one, or not whole."""
        weights, config = load_weights(path)
        try:
            meta_graph = cls(SearchSpace.from_config(config["search_space"]), config["num_classes"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"meta_graph: {path} holds no meta-graph ({error!r})") from error
        try:
            outcome = meta_graph.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            raise ValueError(
                f"meta_graph: the weights in {path} do not fit their own space: {error}"
            ) from error
        missing = [name for name in outcome.missing_keys if not name.endswith("num_batches_tracked")]
        if missing or outcome.unexpected_keys:
            raise ValueError(
                f"meta_graph: {path} lacks {missing[:3]}, has {outcome.unexpected_keys[:3]} too many"
            )
        return meta_graph.eval()

    def child(self, mask: Tensor) -> Child:
        """The network that ``mask`` (``(num_cells, num_modules)``, repaired here) selects, by itself.

        It has weights of its own; the children of a :meth:`folded` graph share that graph's.
        """
        return Child(self, self.space.repair(mask))


class Child(nn.Module):
    """A plain, deployable network: the modules of one mask, BatchNorm folded. Images in, logits out."""

    def __init__(self, meta_graph: MetaGraph, mask: Tensor):
        super().__init__()
        shared = isinstance(meta_graph.stem, FoldedConv)
        fold = nn.Module.eval if shared else fold_batch_norm
        self.stem = fold(meta_graph.stem)
        self.cells = nn.ModuleList()
        for cell, row in zip(meta_graph.cells, mask, strict=True):
            assert isinstance(cell, MetaCell)
            options = [fold(option) for option, on in zip(cell.options, row.tolist(), strict=True) if on]
            if options:
                self.cells.append(ChildCell(cell, options))
        self.head = fold(meta_graph.head)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised float images ``(B, 3, H, W)`` to logits ``(B, num_classes)``."""
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        for cell in self.cells:
            x = cell(x)
        return self.head(x)


class ChildCell(nn.Module):
    """The selected modules of one cell, run for every image."""

    def __init__(self, cell: MetaCell, options: Sequence[nn.Module]):
        super().__init__()
        self.options = nn.ModuleList(options)
        self.keeps_shape = cell.keeps_shape

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`MetaCell.forward`, for images that all chose the same modules."""
        total = self.options[0](x)
        for option in self.options[1:]:
            total = total + option(x)
        if len(self.options) > 1:
            total = total * (1.0 / len(self.options))
        return x + total if self.keeps_shape else total


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """He initialisation of convolutions (fan out), N(0, 0.01) of linear layers, from ``generator``."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01, generator=generator)
            nn.init.zeros_(layer.bias)
