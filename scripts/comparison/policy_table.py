"""The comparison as a table in the form of the paper's Tables 1 to 3."""

from __future__ import annotations

from typing import Any

from scripts.comparison.names import SHUFFLED, reference_row
from scripts.comparison.text_table import Columns, Interval, TextTable, difference, milliseconds, points

CAPTION = (
    "Each policy's accuracy on the test images and mean time of an image, the controller's own included."
    " Brackets hold 95 % intervals over images. “Over one network for all”: points of accuracy over the best"
    " fixed choice of modules that takes no longer; 0 means that one network for all images would have done."
    " “Lost when shuffled”: points lost when the same networks are exchanged between images; 0 means that it"
    " does not matter which image gets which. “Oracle”: images that at least one of the controller's most"
    " used networks gets right, so the most that choosing among them could reach."
)


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
