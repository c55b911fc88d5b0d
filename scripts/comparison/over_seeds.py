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
from scripts.comparison.policy_table import signed

HEAD = (
    "Policy",
    "Seeds",
    "Accuracy, %",
    "ms",
    "Networks",
    "Lost when shuffled",
    "Over static mask",
    "the same, controller's time counted",
)

Interval = tuple[float, float | None, float | None]


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


def points(interval: Interval | None, plus: str = "") -> str:
    """A fraction and its interval in points: "0.5 [0.1, 0.9]"; nothing for None."""
    if interval is None:
        return ""
    mean, low, high = (None if value is None else 100 * value for value in interval)
    assert mean is not None
    bounds = "" if low is None or high is None else f" [{signed(low, 1)}, {signed(high, 1)}]"
    return signed(mean, 1, plus) + bounds


def seed_table(summary: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The lines beneath :data:`HEAD`."""
    return [
        (
            row["name"],
            str(row["seeds"]),
            points(row["accuracy"]),
            f"{row['latency_ms'][0]:.2f}",
            f"{row['architectures'][0]:.0f}",
            points(row.get("shuffled")),
            points(row.get("static")),
            points(row.get("static_with_controller_time")),
        )
        for row in summary
    ]


def gains_told(summary: list[dict[str, Any]]) -> list[str]:
    """Who is more accurate than whom on average, a sentence for each pair."""
    return [
        f"{row['name']} over {other}: {points(gain, '+')} points"
        for row in summary
        for other, gain in row["gains"].items()
        if gain[0] > 0
    ]
