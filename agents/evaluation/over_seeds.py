"""A line for each policy of a comparison: the means of its rows over seeds, with intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import permutations
from typing import Any

import numpy as np

Interval = tuple[float, float | None, float | None]
"""A mean or a difference, and the two ends of its 95 % interval."""

ENDS = ("_low", "_high")
"""End the names of the two ends of a figure's interval over images."""


def mean_interval(values: list[float]) -> Interval:
    """Mean over seeds and its 95 % interval (Student's t); one seed has none."""
    from scipy.stats import t

    array = np.asarray(values, float)
    mean = float(array.mean())
    if len(array) < 2:
        return mean, None, None
    half = float(t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return mean, mean - half, mean + half


def gain_interval(gains: np.ndarray) -> Interval:
    """Mean of gains ``(seeds, images)`` and its 95 % interval over both: of other images and trainings.

    The half-widths over images (of the seeds' mean on each) and over seeds (of each one's mean) are added in
    squares; one seed has the former alone.
    """
    mean, low, _ = mean_interval(gains.mean(0).tolist())
    if low is None:
        return mean, None, None
    _, lowest, _ = mean_interval(gains.mean(1).tolist())
    half = math.hypot(mean - low, 0.0 if lowest is None else mean - lowest)
    return mean, mean - half, mean + half


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
    """By how much each policy with several seeds is more accurate than each other one with the same ones.

    Differences are taken seed by seed; fractions.
    """
    accuracy = {
        policy: {row["seed"]: row["test"]["accuracy"] for row in members}
        for policy, members in by_policy(rows).items()
        if len(members) > 1
    }
    return {
        (ours, theirs): mean_interval([own - accuracy[theirs][seed] for seed, own in accuracy[ours].items()])
        for ours, theirs in permutations(accuracy, 2)
        if accuracy[ours].keys() == accuracy[theirs].keys()
    }
