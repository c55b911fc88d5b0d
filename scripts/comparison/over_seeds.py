"""A line for each policy of a comparison: the means of its rows over seeds, with intervals."""

from __future__ import annotations

from collections import defaultdict
from itertools import permutations
from typing import Any

from agents.evaluation.scores import mean_interval
from scripts.comparison.text_table import Interval, points

ENDS = ("_low", "_high")
"""End the names of the two ends of a figure's interval over images."""


def by_policy(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each policy, in the order of their seeds."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["seed"]):
        found[row["policy"]].append(row)
    return {name: found[name] for name in dict.fromkeys(row["policy"] for row in rows)}


def over_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each policy, in the order in which they come.

    A line has "policy", "group", "seeds" (how many), and for every figure that all its seeds have ``(mean,
    low, high)``: the 95 % interval over seeds, with one seed that over images where there is one, else None.
    """
    lines = []
    for policy, members in by_policy(rows).items():
        line = {"policy": policy, "group": members[0].get("group", policy), "seeds": len(members)}
        own = [row["test"] for row in members]
        for name, value in own[0].items():
            values = [figures.get(name) for figures in own]
            if name.endswith(ENDS) or not all(isinstance(value, (int, float)) for value in values):
                continue
            line[name] = mean_interval(values)
            if len(own) == 1 and name + ENDS[0] in own[0]:
                line[name] = (value, *(own[0][name + end] for end in ENDS))
        lines.append(line)
    return lines


def gains(rows: list[dict[str, Any]]) -> dict[tuple[str, str], Interval]:
    """By how much each policy with several seeds is more accurate than each other one with as many of them.

    Differences are taken seed by seed; fractions.
    """
    accuracy = {
        policy: [row["test"]["accuracy"] for row in members]
        for policy, members in by_policy(rows).items()
        if len(members) > 1
    }
    return {
        (ours, theirs): mean_interval([a - b for a, b in zip(accuracy[ours], accuracy[theirs], strict=True)])
        for ours, theirs in permutations(accuracy, 2)
        if len(accuracy[ours]) == len(accuracy[theirs])
    }


def gains_told(rows: list[dict[str, Any]]) -> list[str]:
    """Who is more accurate than whom on average, a sentence for each pair."""
    return [
        f"{ours} over {theirs}: {points(gain, '+')} points"
        for (ours, theirs), gain in gains(rows).items()
        if gain[0] > 0
    ]
