"""What a search space is made of: a cell's shapes, and the modules that it may run (Figure 3)."""

from __future__ import annotations

from dataclasses import dataclass

from instanas_env import paper


@dataclass(frozen=True)
class ModuleSpec:
    """One of the options of a cell (Figure 3): ``kind`` "basic" or "mbconv", kernel size, expansion F."""

    kind: str
    kernel: int
    expansion: int

    @property
    def label(self) -> str:
        """A short name for tables and figures, such as ``MB k5 F6``."""
        return f"Basic k{self.kernel}" if self.kind == "basic" else f"MB k{self.kernel} F{self.expansion}"


@dataclass(frozen=True)
class CellSpec:
    """Shapes of one cell: channels in and out, stride, and the height (= width) of its input in px."""

    in_channels: int
    out_channels: int
    stride: int
    resolution: int

    @property
    def keeps_shape(self) -> bool:
        """Whether the cell may be left empty: input and output have one shape, so identity will do."""
        return self.stride == 1 and self.in_channels == self.out_channels


def round_to_eight(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and at least 90 % of ``channels``, as in MobileNetV2's own code.

    Inference engines block channels by 8 or 16; other widths cost more than the next multiple does. Expanded
    widths are multiples of these.
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


ALL_MODULES = tuple(ModuleSpec(*spec) for spec in paper.MODULES)
MOBILENET_V2_BLOCK = ALL_MODULES[paper.MOBILENET_V2_MODULE]
