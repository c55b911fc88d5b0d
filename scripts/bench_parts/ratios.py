"""Times compared within one run: interleaved rounds, medians with their quartiles."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal, get_args

Actions = dict[str, Callable[[], Any]]


Part = Literal[
    "evaluation",
    "batch_sizes",
    "training",
    "kept_memory",
    "environment",
    "twin",
    "learning",
    "children",
    "one_file",
    "memory",
]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    out: Path | None = None
    """JSON file for the figures."""
    quick: bool = False
    """Smaller batches and fewer rounds."""
    parts: tuple[Part, ...] = get_args(Part)
    """Those to run."""
    rounds: int = 5
    threads: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Figure:
    """A measured ratio with the quartiles of its rounds. ``goal`` is "at least" or "at most" a number."""

    name: str
    value: float
    low: float
    high: float
    goal: str = ""


def interleaved(actions: Actions, rounds: int) -> dict[str, list[float]]:
    """Seconds of each action in each round; all take turns, so that all see the same machine."""
    for action in actions.values():
        action()
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def figure(name: str, values: list[float], goal: str = "") -> Figure:
    """Median and quartiles of one value a round."""
    low, _, high = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return Figure(name, median(values), low, high, goal)


def ratio(name: str, above: list[float], below: list[float], goal: str = "") -> Figure:
    """The ratio of two times, taken round by round."""
    return figure(name, [a / b for a, b in zip(above, below, strict=True)], goal)
