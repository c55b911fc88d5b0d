"""What the options of every verb may be, by their names: refused before anything is read or written."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from instanas_env import checks

LEAST = {
    "batch_size": 2, "candidates": 1, "chunk": 1, "dials": 1, "finalists": 1, "fitted": 1, "images": 1,
    "masks": 1, "menu": 1, "num_classes": 1, "num_envs": 1, "repetitions": 1, "seeds": 1,
    "snapshots": 1, "threads": 1,
}  # fmt: skip
"""Of whole numbers; all others begin at 0."""


def check_options(options: Any) -> None:
    """``ValueError`` names the first option that cannot be; those within options are looked at, too."""
    for field in fields(options):
        value = getattr(options, field.name)
        for each in value if isinstance(value, tuple) else (value,):
            if is_dataclass(each):
                check_options(each)
            elif isinstance(each, int) and not isinstance(each, bool):
                checks.whole(field.name, each, LEAST.get(field.name, 0))
            elif isinstance(each, float):
                checks.number(field.name, each, 0 if field.name.endswith("rate") else -checks.LARGEST)
