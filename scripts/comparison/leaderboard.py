"""The table of a contest, made once: for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scripts.comparison.text_table import TextTable

HEAD = ("policy", "seeds", "reward", "right, %", "ms", "networks", "lost shuffled, points", "regret", "s")
NOTES = (
    "Test split; means over seeds with 95 % intervals (Student's t). ms: deployed, by the table, with the"
    " controller's time. Lost shuffled: what the same masks lose when other images get them. Regret: reward"
    " that the best mask of the menu for each image would earn more. s: of training, one process."
)


def interval(figure: Sequence[float | None], digits: int, factor: float = 1.0) -> str:
    """``(mean, low, high)`` as "0.69 (0.68 to 0.70)"; without the bounds where there is one seed."""
    mean, low, high = (None if value is None else factor * value for value in figure)
    told = f"{mean:.{digits}f}"
    return told if low is None or high is None else f"{told} ({low:.{digits}f} to {high:.{digits}f})"


def lines(ranked: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The cells beneath :data:`HEAD`."""
    return [
        (
            row["policy"],
            str(row["seeds"]),
            interval(row["reward"], 3),
            interval(row["accuracy"], 1, 100),
            interval(row["latency_ms"], 3),
            f"{row['networks'][0]:,.0f}",
            interval(row["lost_shuffled_accuracy"], 1, 100) if row["networks"][0] > 1 else "",
            interval(row["regret_for_image"], 3),
            f"{row['seconds']:.0f}",
        )
        for row in ranked
    ]


def show(ranked: list[dict[str, Any]]) -> None:
    """The table on the terminal."""
    TextTable(HEAD, lines(ranked)).show()


def markdown(ranked: list[dict[str, Any]], limits: dict[str, float], command: str) -> str:
    """The leaderboard as a file."""
    told = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in limits.items())
    foot = [NOTES, "", f"Reward of the best masks: {told}.", "", f"    {command}", ""]
    return "\n".join(["# Leaderboard", "", TextTable(HEAD, lines(ranked)).markdown(), *foot])
