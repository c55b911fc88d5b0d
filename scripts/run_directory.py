"""A directory that holds one run: its options, its history and its checkpoint. Killed, it resumes."""

from __future__ import annotations

import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

import torch

from instanas_env.storage import (
    load_checkpoint,
    load_json,
    remove_abandoned,
    save_checkpoint,
    save_json,
    write_atomic,
)


class RunDirectory:
    """Artifacts of one script's run.

    Opening one clears away what killed calls of the script left half written.

    Args:
        path: the directory; made if absent.
        options: the dataclass of options that makes the run. A directory with other options is refused,
            except for the fields named in ``free`` (they change nothing in the result).
        free: names of such fields.

    Raises:
        ValueError: the directory belongs to a run with other options.
    """

    def __init__(self, path: Path, options: Any, free: tuple[str, ...] = ()):
        self.path = path
        self.history: list[dict[str, Any]] = []
        config = json.loads(json.dumps(dataclasses.asdict(options), default=str))
        self.config = {name: value for name, value in config.items() if name not in free}
        recorded = path / "config.json"
        if recorded.exists():
            before = load_json(recorded)
            changed = sorted(k for k in before.keys() | self.config if before.get(k) != self.config.get(k))
            if changed:
                raise ValueError(
                    f"out: {path} holds a run with other {', '.join(changed)}; choose another folder"
                )
        remove_abandoned(path)
        save_json(recorded, self.config)

    def restore(self) -> dict[str, Any] | None:
        """The last checkpoint's state, or None at the start; brings the history back to that point."""
        file = self.path / "checkpoint.pt"
        if not file.exists():
            return None
        state = load_checkpoint(file)
        self.history = state.pop("history")
        self._write_history()
        return state

    def checkpoint(self, row: dict[str, Any], state: dict[str, Any]) -> None:
        """Add ``row`` to ``history.jsonl`` and save ``state``; the checkpoint is the truth of both."""
        self.history.append(row)
        save_checkpoint(self.path / "checkpoint.pt", {**state, "history": self.history})
        self._write_history()

    def _write_history(self) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in self.history)
        write_atomic(self.path / "history.jsonl", lines.encode())


def machine() -> dict[str, Any]:
    """What the numbers of a run depend on besides its options."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "python": platform.python_version(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
