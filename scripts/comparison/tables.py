"""The tables of a comparison: all policies, in the form of the paper's Tables 1 to 3, and means over seeds.

Rows belong together if their names are the same but for ``_seed1`` and so on, as an experiment has them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import permutations
from typing import Any

from agents.evaluation.scores import mean_interval
from scripts.comparison.text_table import Columns, Interval, TextTable, difference, milliseconds, points

SHUFFLED = ", shuffled"
"""Ends the name of a control: another policy's masks, exchanged between the images."""
SEED = re.compile(r"_seed(\d+)")
"""In the name of a policy that was made again with another seed."""
CAPTION = (
    "Each policy's accuracy on the test images and mean time of an image, the controller's own included."
    " Brackets hold 95 % intervals over images. “Over one network for all”: points of accuracy over the best"
    " fixed choice of modules that takes no longer; 0 means that one network for all images would have done."
    " “Lost when shuffled”: points lost when the same networks are exchanged between images; 0 means that it"
    " does not matter which image gets which. “Oracle”: images that at least one of the controller's most"
    " used networks gets right, so the most that choosing among them could reach."
)
CAPTION_OVER_SEEDS = (
    "Means over seeds; brackets hold 95 % intervals over seeds (Student's t). Differences are in points of"
    " accuracy, the columns mean what they mean in the table of all policies."
)


def first_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without those of further seeds, which would cover each other in a figure."""
    return [row for row in rows if not SEED.search(row["name"])]


def learned_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of controllers, without the controls."""
    return [row for row in rows if row.get("networks") and not row["name"].endswith(SHUFFLED)]


def reference_row(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """MobileNetV2, to which latencies are compared; None if the comparison left it out."""
    return next((row for row in rows if row["name"].startswith("MobileNetV2")), None)


def policy_table(rows: list[dict[str, Any]]) -> TextTable:
    """A line for each policy; its controls are columns, and measured times are one where there are any."""
    reference = reference_row(rows)
    accuracy = {row["name"]: row["accuracy"] for row in rows}
    shown = [row for row in rows if not row["name"].endswith(SHUFFLED)]

    def against_reference(row: dict[str, Any]) -> str:
        return "" if reference is None else difference(row["latency_ms"] / reference["latency_ms"])

    def gain(row: dict[str, Any], control: str) -> str:
        return points(gain_of(row["controls"], control)) if row.get("controls") else ""

    def lost_shuffled(row: dict[str, Any]) -> str:
        if row.get("controls") or row["name"] + SHUFFLED not in accuracy:
            return gain(row, "shuffled")
        return points((row["accuracy"] - accuracy[row["name"] + SHUFFLED], None, None))

    def oracle(row: dict[str, Any]) -> str:
        return f"{100 * row['controls']['oracle']['any_right']:.1f}" if row.get("controls") else ""

    def measured(row: dict[str, Any]) -> str:
        ms = row.get("real_latency_ms")
        return "" if ms is None else milliseconds(ms)

    columns: Columns = {
        "Policy": lambda row: row["name"],
        "Accuracy, %": lambda row: points((row["accuracy"], row["accuracy_low"], row["accuracy_high"])),
        "ms": lambda row: milliseconds(row["latency_ms"]),
        "against MobileNetV2": against_reference,
        "Networks": lambda row: f"{row['architectures']:,}",
        "Over one network for all": lambda row: gain(row, "static_with_controller_time"),
        "Lost when shuffled": lost_shuffled,
        "Oracle, %": oracle,
    }
    if any(map(measured, shown)):
        columns["measured ms"] = measured
    return TextTable.of(columns, shown)


def gain_of(controls: dict[str, Any], name: str) -> Interval:
    """What a policy gains over one of its controls."""
    gain = controls[name]["gain"]
    return gain["difference"], gain["low"], gain["high"]


def over_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each policy with several seeds; ``gains`` are over the others with as many, seed by seed.

    A row has the name, the number of seeds, and ``(mean, low, high)`` of each figure; accuracies and gains
    are fractions.
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
