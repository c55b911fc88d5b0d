"""What all figures share: their size and style, and how they become files."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

WIDTH = 5.2
"""Inches: as wide as a phone can show without shrinking the letters much."""
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid.axis": "both",
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "savefig.dpi": 200,
    "text.parse_math": False,  # a class may be called $\frac$
    "svg.hashsalt": "instanas",  # otherwise its names are drawn at random
}
PALETTE = (
    "#5b6573", "#e0a100", "#1f6fb4", "#c8312b", "#2a9134", "#7b54b0", "#14a3b5", "#d1559f",
    "#8a5a44", "#a39a00", "#1b2f66", "#f0938f",
)  # fmt: skip
"""Colours of the groups of policies, in the order of their first rows."""


def new_figure(height: float, lines: int = 1, columns: int = 1, **more: Any) -> tuple[Any, np.ndarray]:
    """A figure of :data:`WIDTH`, and its axes ``(lines, columns)``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(lines, columns, squeeze=False, **more)


def arrays(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks ``(n, bits)``, images ``(n,)`` and latencies ``(n,)`` of a policy's distinct networks."""
    networks = row["masks"]
    masks = np.array([[float(bit) for bit in network["mask"]] for network in networks])
    images = np.array([network["images"] for network in networks], float)
    return masks, images, np.array([network["latency_ms"] for network in networks])


def png_of(pixels: np.ndarray) -> bytes:
    """Pixels, uint8 ``(h, w, 3)``, as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def saved(figure: Any, kind: str) -> bytes:
    """A matplotlib figure as a file; the same figure gives the same bytes."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """An address that holds the picture itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
