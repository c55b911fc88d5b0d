"""The table of a contest, made once: for the terminal, the report's page and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scripts.comparison.text_table import TextTable, points, signed

HEAD = (
    "policy",
    "seeds",
    "reward",
    "over fixed",
    "right, %",
    "ms",
    "networks",
    "lost shuffled, points",
    "regret",
    "hypervolume",
    "answers",
    "s",
)
CLOCK = "ms by the clock"
NOTES = (
    "Test split; means over seeds with 95 % intervals (Student's t). Over fixed: reward beyond that of the"
    " best fixed mask on the same images; its interval is over images, paired. ms: deployed, by the table,"
    " with the controller's time. Lost shuffled: what the same masks lose when other images get them. Regret:"
    " reward that the best mask of the menu for each image would earn more. Hypervolume: of accuracy against"
    " latency, from nothing right in the time of all modules (0) to all right in no time (1). Answers: images"
    " under a mask that were learnt from, on training images; of the best fixed mask those of its search, on"
    " validation images. s: of the processor, for these."
)


def interval(figure: Sequence[float | None], digits: int) -> str:
    """``(mean, low, high)`` as "0.69 (0.68 to 0.70)"; without the bounds where there is one seed."""
    mean, low, high = (None if value is None else signed(value, digits) for value in figure)
    return str(mean) if low is None else f"{mean} ({low} to {high})"


def table(ranked: list[dict[str, Any]]) -> TextTable:
    """A line for each policy; with times by the clock where there are any."""
    clocked = any("clock_ms" in row for row in ranked)
    lines = []
    for row in ranked:
        gain, lost = row["over_fixed_reward"], row["lost_shuffled_accuracy"]
        cells = (
            row["policy"],
            str(row["seeds"]),
            interval(row["reward"], 3),
            interval(gain, 3) if any(gain) else "",
            points(row["accuracy"]),
            interval(row["latency_ms"], 3),
            f"{row['networks'][0]:,.0f}",
            points(lost) if row["networks"][0] > 1 else "",
            signed(row["regret_for_image"][0], 3),
            f"{row['hypervolume'][0]:.3f}",
            f"{row['steps']:,.0f}",
            "" if row["seconds"] is None else f"{row['seconds']:.0f}",
            *((interval(row["clock_ms"], 3) if "clock_ms" in row else "",) if clocked else ()),
        )
        lines.append(cells)
    return TextTable((*HEAD, CLOCK) if clocked else HEAD, lines)


def searched(record: dict[str, Any]) -> str:
    """What the fixed masks took, which other policies are given."""
    answers = f"{record['search']['answers']:,} answers"
    return f"The search that found the best fixed mask and the menu took {answers}."


def markdown(record: dict[str, Any]) -> str:
    """The leaderboard as a file, from what ``benchmark.json`` holds."""
    told = ", ".join(
        f"{name.replace('_', ' ')} {record['bounds'][name]:.3f}"
        for name in ("fixed", "for_class", "for_image")
    )
    volumes = (
        f"Hypervolume of all policies together {record['hypervolume']:.3f}, of the menu's masks"
        f" {record['bounds']['hypervolume']:.3f}."
    )
    best = f"{searched(record)} Reward of the best masks: {told}. {volumes}"
    foot = [NOTES, "", best, "", f"    {record['command']}", ""]
    return "\n".join([f"# Leaderboard of {record['env']}", "", table(record["ranked"]).markdown(), *foot])
