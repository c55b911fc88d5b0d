"""What a comparison shows, in a sentence with its interval, whichever way it went."""

from __future__ import annotations

from typing import Any

from scripts.comparison.names import reference_row
from scripts.comparison.policy_table import gain_of
from scripts.comparison.text_table import Interval, count, difference, milliseconds, points, signed

Row = dict[str, Any]
IDEA = "Every image gets a neural network of its own"


def claimed(learned: list[Row]) -> Row:
    """The policy that the page is about: the one with most networks, the user's before a shipped one.

    The rule looks at neither accuracy nor time, so that the claim is not the luckiest of several.
    """
    own = [row for row in learned if row["architectures"] > 1 and "(shipped)" not in row["name"]]
    return max(own or learned, key=lambda row: row["architectures"])


def claim(row: Row, seeds: list[Row]) -> str:
    """What the policy gains over the best single network, over seeds where there are several."""
    control = "static_with_controller_time"
    gain: Interval = (0.0, None, None)
    over = count(row["images"], "image")
    if row.get("controls"):
        gain = gain_of(row["controls"], control)
    for family in seeds:
        if family["name"] == row["name"] and control in family:
            gain, over = family[control], count(family["seeds"], "seed")
    mean, low, high = gain
    if low is None or high is None:
        return IDEA
    size = f"{abs(100 * mean):.1f} {'fewer' if mean < 0 else 'more'}"
    return (
        f"With a network of its own for every image, {size} of 100"
        " images are recognised than with the best single network that takes no longer"
        f"{', which may be chance' if low <= 0 <= high else ''}"
        f" (95 % interval over {over}: {signed(100 * low, 1)} to {signed(100 * high, 1)})"
    )


def told(row: Row, rows: list[Row]) -> str:
    """The figures behind the claim."""
    text = (
        f"The policy “{row['name']}” gives {count(row['images'], 'test image')}"
        f" {count(row['architectures'], 'network')} and recognises"
        f" {points((row['accuracy'], row['accuracy_low'], row['accuracy_high']))} % of them,"
        f" in {milliseconds(row['latency_ms'])} ms an image on average"
    )
    reference = reference_row(rows)
    if reference is None:
        return f"{text}."
    saved = difference(row["latency_ms"] / reference["latency_ms"])
    return (
        f"{text}: {saved} against {reference['name']}, which recognises {100 * reference['accuracy']:.1f} %."
    )
