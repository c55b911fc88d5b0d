"""The comparison as a table in the form of the paper's Tables 1 to 3."""

from __future__ import annotations

from typing import Any

from scripts.comparison.names import SHUFFLED, reference_row
from scripts.comparison.text_table import Interval, TextTable, difference, milliseconds, points

HEAD = (
    "Policy",
    "Accuracy, %",
    "ms",
    "against MobileNetV2",
    "Networks",
    "Over one network for all",
    "Lost when shuffled",
    "Oracle, %",
)
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
    control = {row["name"]: row["accuracy"] for row in rows}
    shown = [row for row in rows if not row["name"].endswith(SHUFFLED)]
    timed = any(row.get("real_latency_ms") is not None for row in shown)
    lines = []
    for row in shown:
        shuffled = control.get(row["name"] + SHUFFLED)
        lost = "" if shuffled is None else points((row["accuracy"] - shuffled, None, None))
        controls = row.get("controls")
        measured = row.get("real_latency_ms")
        lines.append(
            (
                row["name"],
                points((row["accuracy"], row["accuracy_low"], row["accuracy_high"])),
                milliseconds(row["latency_ms"]),
                "" if reference is None else difference(row["latency_ms"] / reference["latency_ms"]),
                f"{row['architectures']:,}",
                "" if controls is None else points(gain_of(controls, "static_with_controller_time")),
                lost if controls is None else points(gain_of(controls, "shuffled")),
                "" if controls is None else f"{100 * controls['oracle']['any_right']:.1f}",
                *(("" if measured is None else milliseconds(measured),) if timed else ()),
            )
        )
    return TextTable((*HEAD, "measured ms") if timed else HEAD, lines)


def gain_of(controls: dict[str, Any], name: str) -> Interval:
    """What a policy gains over one of its controls."""
    gain = controls[name]["gain"]
    return gain["difference"], gain["low"], gain["high"]
