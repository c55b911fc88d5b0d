"""Show the history of a run in TensorBoard (extra "tensorboard").

    python -m scripts.report.tensorboard --run runs/search
    tensorboard --logdir runs

Reads history.jsonl and writes event files beside it; call it again to bring them up to date.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instanas_env.storage import load_json_lines


@dataclass(frozen=True)
class Options:
    """Which run."""

    run: Path
    """Directory with history.jsonl."""


def scalars(row: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a row of history with their names; nested ones as ``val/accuracy``."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield prefix + name, float(value)


def main(options: Options) -> None:
    """Write the event files anew."""
    from torch.utils.tensorboard import SummaryWriter

    for old in options.run.glob("events.out.tfevents.*"):
        old.unlink()
    rows = load_json_lines(options.run / "history.jsonl")
    with SummaryWriter(str(options.run)) as writer:
        for row in rows:
            for name, value in scalars(row):
                writer.add_scalar(name, value, row["epoch"])
    print(f"wrote {len(rows)} epochs to {options.run}")
