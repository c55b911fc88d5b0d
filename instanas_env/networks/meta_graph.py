"""The meta-graph (section 3.2): one set of weights for all child networks, at the cost of the chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from instanas_env import checks
from instanas_env.networks.meta_cell import MetaCell
from instanas_env.networks.modules import ConvBN, FoldedConv, MBConv, fold_batch_norm
from instanas_env.search_space import SearchSpace
from instanas_env.storage import PathLike, check_weights, load_weights, save_weights
from instanas_env.validation import integer, record

MAX_CLASSES = 100_000
_CONFIG = record({"search_space": SearchSpace.from_config, "num_classes": integer(1, MAX_CLASSES)}, more=True)


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
        self._build(space, checks.whole("num_classes", num_classes, 1, MAX_CLASSES))
        initialise(self, generator or torch.Generator().manual_seed(0))
        self.to(memory_format=torch.channels_last)

    def _build(self, space: SearchSpace, num_classes: int) -> None:
        """All layers, without memory for their weights."""
        super().__init__()
        self.space = space
        self.num_classes = num_classes
        with torch.device("meta"):  # PyTorch's own initialisation would draw from the global generator
            self.stem = ConvBN(3, space.stem_channels, 3, space.stem_stride)
            self.cells = nn.ModuleList(MetaCell(cell, space.modules) for cell in space.cells)
            self.head = nn.Sequential(
                ConvBN(space.cells[-1].out_channels, space.head_channels, 1),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(space.head_channels, num_classes),
            )

    def forward(self, images: Tensor, masks: Tensor, elsewhere: Tensor | None = None) -> Tensor:
        """Class logits of each image under its own child network.

        Args:
            images: float ``(B, 3, H, W)``, normalised.
            masks: bool ``(B, num_cells, num_modules)`` on any device, or ``(K, B, ...)`` for K masks of
                each image, which then share the stem. Not repaired here: an empty cell that changes shape
                gives zeros.
            elsewhere: bool ``(num_cells, num_modules)``, modules that images of other processes chose. They
                run here as well, be it without an image: all processes meet in their BatchNorms.

        Returns:
            float ``(B, num_classes)`` or ``(K, B, num_classes)``.
        """
        self._check(images, masks)
        # One copy to the host and one back in all, so that a GPU never waits in the cells.
        masks = masks.cpu()
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        if masks.ndim == 4:
            x = torch.cat([x] * len(masks))
        rows = masks.flatten(0, -3)
        chosen = rows.permute(1, 2, 0)
        counts = chosen.sum(2).flatten().tolist()
        indices = chosen.nonzero()[:, 2].to(x.device, non_blocking=True).split(counts)
        always = [None] * len(self.cells) if elsewhere is None else elsewhere.tolist()
        numbers = rows.sum(2)
        several = (numbers > 1).any(0).tolist()
        shares = (1.0 / numbers.clamp(min=1)).to(x.device, non_blocking=True)
        for t, cell in enumerate(self.cells):
            start = t * self.space.num_modules
            share = shares[:, t] if several[t] else None
            x = cell(x, indices[start : start + self.space.num_modules], share, always[t])
        return self.head(x).unflatten(0, masks.shape[:-2])

    def _check(self, images: Tensor, masks: Tensor) -> None:
        side = self.space.resolution
        if images.ndim != 4 or len(images) == 0 or tuple(images.shape[1:]) != (3, side, side):
            raise ValueError(f"images: got shape {tuple(images.shape)}; (B, 3, {side}, {side}) will do")
        expected = (len(images), *self.space.mask_shape)
        if masks.dtype != torch.bool or tuple(masks.shape[-3:]) != expected or masks.ndim not in (3, 4):
            got = f"{masks.dtype} {tuple(masks.shape)}"
            raise ValueError(f"masks: got {got}; torch.bool {expected} will do for these images")

    def folded(self) -> MetaGraph:
        """A copy for evaluation, BatchNorm folded into the convolutions; gives the same logits, faster."""
        folded = fold_batch_norm(self)
        assert isinstance(folded, MetaGraph)
        return folded

    @torch.no_grad()
    def start_from(self, other: MetaGraph) -> None:
        """Take over the weights of a network of the same cells and some of the modules, as MobileNetV2 is.

        The other modules inherit from its last one what fits, see :meth:`MBConv.inherit`.

        Raises:
            ValueError: it has other cells, other classes, or a module that is missing here.
        """
        known = self.space.modules
        same = replace(other.space, modules=known) == self.space and other.num_classes == self.num_classes
        if not same or not set(other.space.modules) <= set(known):
            raise ValueError(
                f"other: got {other.space.config} with {other.num_classes} classes; {self.space.config}"
                f" with {self.num_classes}, or some of its modules, will do"
            )
        self.stem.load_state_dict(other.stem.state_dict())
        self.head.load_state_dict(other.head.state_dict())
        for mine, theirs in zip(self.cells, other.cells, strict=True):
            assert isinstance(mine, MetaCell) and isinstance(theirs, MetaCell)
            last = theirs.options[-1]
            for option in mine.options:
                if isinstance(option, MBConv) and isinstance(last, MBConv):
                    option.inherit(last)
            for module, option in zip(other.space.modules, theirs.options, strict=True):
                mine.options[known.index(module)].load_state_dict(option.state_dict())

    def save(self, path: PathLike, record: dict[str, Any] | None = None) -> None:
        """Write the weights as safetensors; ``record`` (JSON-able: how they were made) goes with them."""
        if isinstance(self.stem, FoldedConv):
            raise ValueError("save: BatchNorm is folded into these weights; save the graph they came from")
        config = {"search_space": self.space.config, "num_classes": self.num_classes, "record": record}
        save_weights(path, self.state_dict(), config)

    @classmethod
    def load(cls, path: PathLike) -> MetaGraph:
        """Read a meta-graph in evaluation mode; ``ValueError`` if the file is not one, or not whole."""
        weights, config = load_weights(path)
        with checks.explained(f"meta_graph: {path} holds no meta-graph"):
            checked = _CONFIG(config, "config")
        meta_graph = cls.__new__(cls)
        meta_graph._build(checked["search_space"], checked["num_classes"])  # no memory, whatever the sizes
        take_weights(meta_graph, weights, f"meta_graph: {path}")
        return meta_graph

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

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Normalised float images ``(B, 3, H, W)`` to logits ``(B, num_classes)``, whatever the masks."""
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
    """He initialisation of convolutions (fan out), N(0, 0.01) of linear layers, from ``generator`` alone.

    Layers built on the device "meta" get their memory here; BatchNorm starts as the identity.
    """
    if any(tensor.is_meta for tensor in module.parameters()):
        module.to_empty(device="cpu")
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01, generator=generator)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()


def take_weights(network: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Give memory and these weights to a network built without, for evaluation; errors of `check_weights`."""
    check_weights(weights, network.state_dict(), where)
    network.to_empty(device="cpu").to(memory_format=torch.channels_last).eval()
    for name, tensor in network.state_dict().items():
        tensor.copy_(weights.get(name, torch.tensor(0)))  # files have none of the counters of BatchNorm
