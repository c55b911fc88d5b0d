"""The search space (section 4.1): 17 cells of five modules, and masks that choose among them.

A mask is a boolean tensor ``(..., num_cells, num_modules)``; an action is the same thing flattened to
``(..., num_bits)``, bit ``num_modules * cell + module``. 85 bits in the paper's space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from instanas_env import arrays, checks, paper
from instanas_env.cells import ALL_MODULES, MOBILENET_V2_BLOCK, CellSpec, ModuleSpec, round_to_eight
from instanas_env.storage import PathLike, load_config
from instanas_env.validation import integer, items, number, record, text


@dataclass(frozen=True)
class _Preset:
    resolution: int
    stem_stride: int
    strides: tuple[int, ...]
    base_width: float = 1.0


_PRESETS = {
    "cifar": _Preset(32, 1, paper.STRIDES_32),
    "tiny_imagenet": _Preset(64, 1, paper.STRIDES_64_AND_224),
    "imagenet": _Preset(224, 2, paper.STRIDES_64_AND_224),
    "lite": _Preset(32, 2, paper.STRIDES_32, base_width=0.25),  # made for CPUs
}


MAX_WIDTH = 16
"""The largest width of a preset; a wider one fits into no memory."""
_WIDTH = number(0, MAX_WIDTH, above=True)
_CONFIG = record(
    {
        "preset": text(*_PRESETS),
        "width": _WIDTH,
        "modules": items(integer(0, len(ALL_MODULES) - 1), 1, len(ALL_MODULES)),
    }
)


@dataclass(frozen=True)
class SearchSpace:
    """Immutable description of a space of child networks; build one with :meth:`preset`.

    ``modules`` are the options that every cell offers. The space with MobileNetV2's block alone
    (:meth:`only`) holds MobileNetV2 itself and whatever skips some of its blocks.
    """

    name: str
    width: float
    resolution: int
    stem_channels: int
    stem_stride: int
    head_channels: int
    cells: tuple[CellSpec, ...]
    modules: tuple[ModuleSpec, ...] = ALL_MODULES

    @classmethod
    def preset(cls, name: str, width: float = 1.0) -> SearchSpace:
        """The space ``name``: cifar (32 px), tiny_imagenet (64), imagenet (224) or lite (32, for CPUs).

        Args:
            name: one of the four presets.
            width: multiplies every channel count (of "lite" too, which starts from a quarter); the products
                are rounded by :func:`round_to_eight`.

        Raises:
            ValueError: unknown name, or a width that is not in (0, 16].
        """
        checks.choice("search_space", name, tuple(_PRESETS))
        _WIDTH(width, "width")
        preset = _PRESETS[name]

        def scaled(channels: int) -> int:
            return round_to_eight(channels * preset.base_width * width)

        channels, resolution = scaled(paper.STEM_CHANNELS), preset.resolution // preset.stem_stride
        cells = []
        for (out, count), first_stride in zip(paper.STAGES, preset.strides, strict=True):
            for stride in [first_stride] + [1] * (count - 1):
                cells.append(CellSpec(channels, scaled(out), stride, resolution))
                channels, resolution = scaled(out), resolution // stride
        return cls(
            name=name,
            width=width,
            resolution=preset.resolution,
            stem_channels=scaled(paper.STEM_CHANNELS),
            stem_stride=preset.stem_stride,
            head_channels=scaled(paper.HEAD_CHANNELS),
            cells=tuple(cells),
        )

    def only(self, *modules: int) -> SearchSpace:
        """The same cells with these modules alone, renumbered from 0; ``only(2)`` is MobileNetV2."""
        if not modules or len(set(modules)) < len(modules):
            raise checks.refuse("modules", modules, f"different numbers in 0..{self.num_modules - 1}")
        modules = tuple(checks.whole("modules", module, 0, self.num_modules - 1) for module in modules)
        return replace(self, modules=tuple(self.modules[module] for module in modules))

    @property
    def num_cells(self) -> int:
        return len(self.cells)

    @property
    def num_modules(self) -> int:
        return len(self.modules)

    @property
    def num_bits(self) -> int:
        """Length of an action: 85 in the paper's space."""
        return self.num_cells * self.num_modules

    @property
    def mask_shape(self) -> tuple[int, int]:
        """The shape of one mask: ``(num_cells, num_modules)``."""
        return self.num_cells, self.num_modules

    @property
    def needs_module(self) -> Tensor:
        """The cells that change shape and so must not be empty, bool ``(num_cells,)``."""
        return torch.tensor([not cell.keeps_shape for cell in self.cells])

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able description that :meth:`from_config` turns back into this space."""
        names = [ALL_MODULES.index(module) for module in self.modules]
        return {"preset": self.name, "width": self.width, "modules": names}

    @classmethod
    def from_config(cls, config: Any, place: str = "search_space") -> SearchSpace:
        """Inverse of :attr:`config`; ``ValueError`` names ``place`` and what is wrong with another value.

        So it is a specification of :mod:`instanas_env.validation`.
        """
        checked = _CONFIG(config, place)
        return cls.preset(checked["preset"], config["width"]).only(*checked["modules"])

    @classmethod
    def of_file(cls, path: PathLike) -> SearchSpace:
        """The space of a weights file (meta-graph or controller), whose weights are not read.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file of another kind.
        """
        config = load_config(path)
        with checks.explained(f"{path}: belongs to no search space", KeyError):
            return cls.from_config(config["search_space"])

    def expect(self, **others: SearchSpace) -> None:
        """``ValueError`` unless all these are this space; the names of the arguments go into the message."""
        for name, other in others.items():
            if other != self:
                raise ValueError(f"{name}: made for the search space {other.config}, not for {self.config}")

    # --- masks -----------------------------------------------------------------------------------

    def full_mask(self) -> Tensor:
        """All modules on, ``(num_cells, num_modules)``."""
        return torch.ones(self.mask_shape, dtype=torch.bool)

    def path(self, modules: int | Sequence[int]) -> Tensor:
        """The mask with one module per cell: the same everywhere, or one index for each cell."""
        chosen = torch.as_tensor(modules).expand(self.num_cells)
        return torch.nn.functional.one_hot(chosen, self.num_modules).bool()

    def mobilenet_v2_mask(self) -> Tensor:
        """MobileNetV2: MBConv k3 F6 in every cell."""
        if MOBILENET_V2_BLOCK not in self.modules:
            labels, needed = ", ".join(module.label for module in self.modules), MOBILENET_V2_BLOCK.label
            raise ValueError(f"search_space: MobileNetV2 needs {needed}; this space has {labels}")
        return self.path(self.modules.index(MOBILENET_V2_BLOCK))

    def random_masks(self, count: int, keep: float | Tensor, generator: torch.Generator) -> Tensor:
        """``(count, num_cells, num_modules)`` repaired masks, each module on with probability ``keep``.

        ``keep`` may be one number or ``(count,)``, a rate for each mask.
        """
        count = checks.whole("count", count)
        if not isinstance(keep, Tensor):
            keep = checks.number("keep", keep, 0, 1)
        uniform = torch.rand(count, *self.mask_shape, generator=generator)
        return self.repair(uniform < torch.as_tensor(keep).reshape(-1, 1, 1))

    def repair(self, masks: Tensor) -> Tensor:
        """Switch the default module on where a cell that changes shape was left empty (section 4.1).

        Cells that keep their shape may stay empty: they pass their input on. Each mask is repaired by
        itself, so an image's network never depends on its neighbours; idempotent.

        Args:
            masks: bool ``(..., num_cells, num_modules)``.

        Returns:
            A new tensor of that shape.
        """
        self.check_masks(masks)
        repaired = masks.clone()
        repaired[..., paper.DEFAULT_MODULE] |= self.needs_module.to(masks.device) & ~masks.any(-1)
        return repaired

    def check_masks(self, masks: Any) -> None:
        """``ValueError`` for anything but bool ``(..., num_cells, num_modules)``."""
        if not isinstance(masks, Tensor) or masks.dtype != torch.bool or masks.shape[-2:] != self.mask_shape:
            got = f"{masks.dtype} {tuple(masks.shape)}" if isinstance(masks, Tensor) else type(masks).__name__
            raise ValueError(
                f"masks: got {got}; torch.bool (..., {self.num_cells}, {self.num_modules}) will do"
            )

    def masks_from_actions(self, actions: Any, name: str = "actions") -> Tensor:
        """Check actions ``(..., num_bits)`` of 0 and 1, of any number type, and shape them as masks.

        Returns:
            bool ``(..., num_cells, num_modules)``, not yet repaired.

        Raises:
            ValueError: a last dimension other than ``num_bits``, or a value that is neither 0 nor 1.
        """
        shape = arrays.shape(name, actions)
        if shape[-1:] != (self.num_bits,):
            raise ValueError(f"{name}: got shape {shape}; (..., {self.num_bits}) will do")
        return arrays.whole_numbers(name, actions, 1).bool().unflatten(-1, self.mask_shape)

    def masks_from_text(self, rows: Sequence[str], name: str) -> Tensor:
        """Masks bool ``(len(rows), num_cells, num_modules)`` of what :func:`as_text` wrote.

        Raises:
            ValueError: a row of another length, or of other letters than 0 and 1.
        """
        if any(len(row) != self.num_bits or set(row) - {"0", "1"} for row in rows):
            raise ValueError(f"{name}: got another mask than {self.num_bits} zeros and ones")
        bits = [[bit == "1" for bit in row] for row in rows]
        return torch.tensor(bits, dtype=torch.bool).view(-1, *self.mask_shape)

    def read_masks(self, masks: Any, name: str) -> Tensor:
        """Check and shape bits, as :meth:`masks_from_actions`, or masks ``(..., num_cells, num_modules)``."""
        if arrays.shape(name, masks)[-2:] == self.mask_shape:
            return arrays.whole_numbers(name, masks, 1).bool()
        return self.masks_from_actions(masks, name)


def as_text(masks: Tensor) -> list[str]:
    """Masks ``(K, num_cells, num_modules)`` as strings of zeros and ones, cell by cell, for JSON."""
    return ["".join(map(str, row)) for row in masks.flatten(1).int().tolist()]
