"""Means over seeds, with 95 % intervals (Student's t): of policies that were made several times, and of what
one of them gains over another.

Rows belong together if their names are the same but for ``_seed1`` and so on, as an experiment has them.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import permutations
from typing import Any

from agents.evaluation.scores import mean_interval
from scripts.comparison.names import SEED, SHUFFLED
from scripts.comparison.text_table import Columns, TextTable, milliseconds, points

CAPTION = (
    "Means over seeds; brackets hold 95 % intervals over seeds (Student's t). Differences are in points of"
    " accuracy, the columns mean what they mean in the table of all policies."
)


def over_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each policy with several seeds; ``gains`` are over the others with as many, seed by seed.

    Args:
        rows: those of a comparison.

    Returns:
        Names, numbers of seeds, and ``(mean, low, high)`` of each figure; accuracies and gains as fractions.
    """
    families: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for row in rows:
        if not row["name"].endswith(SHUFFLED):
            found = SEED.search(row["name"])
            families[SEED.sub("", row["name"])].append((int(found[1]) if found else 0, row))
    several = {
        name: [row for _, row in sorted(members, key=lambda member: member[0])]
        for name, members in families.items()
        if len(members) > 1
    }
    summary = []
    for name, members in several.items():
        figures: dict[str, Any] = {"name": name, "seeds": len(members)}
        for figure in ("accuracy", "latency_ms", "architectures"):
            figures[figure] = mean_interval([member[figure] for member in members])
        if all(member.get("controls") for member in members):
            for control in ("shuffled", "static", "static_with_controller_time"):
                gains = [member["controls"][control]["gain"]["difference"] for member in members]
                figures[control] = mean_interval(gains)
        summary.append({**figures, "gains": {}})
    for ours, theirs in permutations(summary, 2):
        if ours["seeds"] == theirs["seeds"]:
            pairs = zip(several[ours["name"]], several[theirs["name"]], strict=True)
            ours["gains"][theirs["name"]] = mean_interval([a["accuracy"] - b["accuracy"] for a, b in pairs])
    return summary


def seed_table(summary: list[dict[str, Any]]) -> TextTable:
    """A line for each policy with several seeds."""
    columns: Columns = {
        "Policy": lambda row: row["name"],
        "Seeds": lambda row: str(row["seeds"]),
        "Accuracy, %": lambda row: points(row["accuracy"]),
        "ms": lambda row: milliseconds(row["latency_ms"][0]),
        "Networks": lambda row: f"{row['architectures'][0]:.0f}",
        "Over one network for all": lambda row: points(row.get("static_with_controller_time")),
        "Lost when shuffled": lambda row: points(row.get("shuffled")),
    }
    return TextTable.of(columns, summary)


def gains_told(summary: list[dict[str, Any]]) -> list[str]:
    """Who is more accurate than whom on average, a sentence for each pair."""
    return [
        f"{row['name']} over {other}: {points(gain, '+')} points"
        for row in summary
        for other, gain in row["gains"].items()
        if gain[0] > 0
    ]
