"""What the names of policies tell: which rows are controls, which are further seeds of another."""

from __future__ import annotations

import re
from typing import Any

SHUFFLED = ", shuffled"
"""Ends the name of a control: another policy's masks, exchanged between the images."""
SEED = re.compile(r"_seed(\d+)")
"""In the name of a policy that was made again with another seed."""


def first_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without those of further seeds, which would cover each other in a figure."""
    return [row for row in rows if not SEED.search(row["name"])]


def learned_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of controllers, without the controls."""
    return [row for row in rows if row.get("networks") and not row["name"].endswith(SHUFFLED)]


def reference_row(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """MobileNetV2, to which latencies are compared; None if the comparison left it out."""
    return next((row for row in rows if row["name"].startswith("MobileNetV2")), None)
