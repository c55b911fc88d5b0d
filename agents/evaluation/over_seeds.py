"""A line for each policy of a comparison: the means of its rows over seeds, with intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np

Interval = tuple[float, float | None, float | None]
"""A mean or a difference, and the two ends of its 95 % interval."""

SHARED = ("fixed", "static")
"""Groups of rows that no run of the comparison has made: above all fixed masks on the shared meta-graph."""
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


def gains(
    rows: Sequence[dict[str, Any]], right: Sequence[np.ndarray], reference: str | None = None
) -> list[dict[str, Any]]:
    """By how much policies are more accurate than others, image by image, and how their latencies compare.

    A policy with several networks stands beside the ``reference`` and each single network that a run trained,
    whoever is better. Others with several seeds stand beside each other, the more accurate one first.
    Differences are those of the seeds that both have; what has one seed stands beside each of the other's.

    Args:
        rows: of a comparison.
        right: which images each row's policy got right, ``(N,)``.
        reference: name of a policy, such as MobileNetV2 trained alone.

    Returns:
        Objects with "policy", "over", "accuracy" (an :data:`Interval` over images and seeds, see
        :func:`gain_interval`; fractions) and "latency" (the ratio; None to none).
    """
    found = by_policy([{**row, "right": own} for row, own in zip(rows, right, strict=True)])
    pairs = []
    for (policy, all_ours), (over, all_theirs) in permutations(found.items(), 2):
        ours, theirs = _of_the_same_seeds(all_ours, all_theirs)
        if not ours:
            continue
        gain = np.array([row["right"] for row in ours]) * 1.0 - np.array([row["right"] for row in theirs])
        asked = _chooses(ours) and (over == reference or _one_network(theirs))
        mirrored = _chooses(theirs) and (policy == reference or _one_network(ours))
        if asked or (min(len(ours), len(theirs)) > 1 and gain.mean() > 0 and not mirrored):
            latency = [np.mean([row["test"]["latency_ms"] for row in members]) for members in (ours, theirs)]
            # All images answered by a controller that took no time to measure.
            ratio = float(latency[0] / latency[1]) if latency[1] > 0 else None
            pairs.append({"policy": policy, "over": over, "accuracy": gain_interval(gain), "latency": ratio})
    return pairs


def _of_the_same_seeds(*members: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of two policies whose seeds the other has too, or all of them beside one of a single seed."""
    if min(map(len, members)) == 1:
        return list(members)
    common = set.intersection(*({row["seed"] for row in rows} for rows in members))
    return [[row for row in rows if row["seed"] in common] for rows in members]


def _chooses(members: list[dict[str, Any]]) -> bool:
    """Whether a policy gives images different networks, of weights of its own."""
    return members[0]["group"] not in SHARED and any(row["test"]["networks"] > 1 for row in members)


def _one_network(members: list[dict[str, Any]]) -> bool:
    """Whether a search, or what was trained after it, is one network for all images alike."""
    own = members[0]["group"] not in SHARED and "parameters" not in members[0]
    return own and all(row["test"]["networks"] == 1 for row in members)
