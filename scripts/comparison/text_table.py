"""A table made once as strings, and shown in the terminal, on the page and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.evaluation.over_seeds import Interval

Columns = dict[str, Callable[[Any], str]]
"""The name of each column of a table, and what gives the cell of a row."""


@dataclass(frozen=True)
class TextTable:
    """A table of strings; the first column has names, the others have numbers.

    Attributes:
        head: names of the columns.
        lines: as many strings each.
    """

    head: tuple[str, ...]
    lines: Sequence[tuple[str, ...]]

    @classmethod
    def of(cls, columns: Columns, rows: Iterable[Any]) -> TextTable:
        """A line for each row."""
        return cls(tuple(columns), [tuple(cell(row) for cell in columns.values()) for row in rows])

    def show(self) -> None:
        """Print it, as wide as it needs where nobody watches."""
        table = Table(box=box.SIMPLE_HEAD)
        for place, name in enumerate(self.head):
            table.add_column(name, justify="right" if place else "left", min_width=0 if place else 12)
        for line in self.lines:
            table.add_row(*map(Text, line))
        Console(width=200).print(table)

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        rules = tuple("---:" if place else "---" for place in range(len(self.head)))
        lines = (self.head, rules, *self.lines)
        return "".join(f"| {' | '.join(map(_plain, line))} |\n" for line in lines)


def _plain(cell: str) -> str:
    """A cell that Markdown takes as text: no markup, no further column, no further line."""
    text = " ".join(escape(cell, quote=False).split())
    return "".join(f"\\{sign}" if sign in r"\|`*[]" else sign for sign in text)


def signed(value: float, digits: int, plus: str = "") -> str:
    """A number with a proper minus sign, zero without one."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("\N{MINUS SIGN}" if value < 0 else plus) + text


def difference(ratio: float) -> str:
    """1.25 as "+25 %", 0.46 as "−54 %"."""
    return f"{signed(100 * (ratio - 1), 0, '+')} %"


def with_ends(interval: Interval, digits: int, plus: str = "", scale: float = 1) -> str:
    """As "0.69 (0.68 to 0.70)"; without ends, where there is one seed, the mean alone."""
    mean, low, high = interval
    text = signed(scale * mean, digits, plus)
    if low is None or high is None:
        return text
    return f"{text} ({signed(scale * low, digits)} to {signed(scale * high, digits)})"


def points(interval: Interval | None, plus: str = "") -> str:
    """Fractions in points: "0.5 (0.1 to 0.9)"; nothing for None."""
    return "" if interval is None else with_ends(interval, 1, plus, 100)


def count(number: int, thing: str) -> str:
    """As in "1 network" and "1,012 networks"."""
    return f"{number:,} {thing}" + ("s" if number != 1 else "")


def milliseconds(value: float) -> str:
    """Without the unit: 0.352, 4.20."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"
