"""The comparison as a table in the form of the paper's Tables 1 to 3: as strings and as print."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.comparison.names import SHUFFLED, reference_row

HEAD = (
    "Policy",
    "Accuracy, %",
    "95 % interval",
    "ms",
    "against MobileNetV2",
    "Networks",
    "Over static mask",
    "Lost when shuffled",
    "Oracle, %",
)


def table_rows(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A line for each policy; controls are no lines but the last columns of their policy's, in points."""
    reference = reference_row(rows)
    control = {row["name"]: row["accuracy"] for row in rows}
    lines: list[tuple[str, ...]] = []
    for row in rows:
        if row["name"].endswith(SHUFFLED):
            continue
        shuffled = control.get(row["name"] + SHUFFLED)
        lost = "" if shuffled is None else signed(100 * (row["accuracy"] - shuffled), 1)
        controls = row.get("controls")
        lines.append(
            (
                row["name"],
                f"{100 * row['accuracy']:.1f}",
                f"{100 * row['accuracy_low']:.1f} to {100 * row['accuracy_high']:.1f}",
                f"{row['latency_ms']:.2f}",
                "" if reference is None else difference(row["latency_ms"] / reference["latency_ms"]),
                f"{row['architectures']:,}",
                "" if controls is None else points(controls["static"]["gain"]),
                lost if controls is None else points(controls["shuffled"]["gain"]),
                "" if controls is None else f"{100 * controls['oracle']['any_right']:.1f}",
            )
        )
    return lines


def points(gain: dict[str, float]) -> str:
    """A gain in points of accuracy with its 95 % interval: "0.5 (0.1 to 0.9)"."""
    value, low, high = (signed(100 * gain[name], 1) for name in ("difference", "low", "high"))
    return f"{value} ({low} to {high})"


def difference(ratio: float) -> str:
    """1.25 as "+25 %", 0.46 as "−54 %"."""
    return f"{signed(100 * (ratio - 1), 0, '+')} %"


def signed(value: float, digits: int, plus: str = "") -> str:
    """A number with a proper minus sign, zero without one."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("\N{MINUS SIGN}" if value < 0 else plus) + text


def print_table(rows: list[dict[str, Any]]) -> None:
    """The table on the terminal, with real latencies where they were measured."""
    real = [row["real_latency_ms"] for row in rows if not row["name"].endswith(SHUFFLED)]
    table = Table(*HEAD, "real ms")
    for column in table.columns[1:]:
        column.justify = "right"
    for line, ms in zip(table_rows(rows), real, strict=True):
        table.add_row(*line, "" if ms is None else f"{ms:.2f}")
    Console(width=140).print(table)
