"""A directory that holds one run: its options, its history and its checkpoint. Killed, it resumes."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from instanas_env import checks
from instanas_env.atomic import remove_abandoned, write_atomic
from instanas_env.data import ImageSet
from instanas_env.storage import file_fingerprint, load_checkpoint, load_json, save_checkpoint, save_json
from instanas_env.training.bound import IMAGE_SETS, SETS, described, difference
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.hold import hold
from instanas_env.validation import mapping, text

FREE = ("out", "data_dir", "device", "threads")
"""Options of a run that change nothing in its result but rounding: it may go on elsewhere."""
FILES = "files"
"""The key of a run's config under which the fingerprints of the files stand that it read."""
PLACE = "data_dir"
"""Where the images are: recorded, so that nobody has to say it again, but another place is no other run."""

_FINGERPRINTS = mapping(text())


class RunDirectory:
    """Artifacts of one script's run.

    Opening one changes nothing: a call that fails before its first result leaves no trace. With
    :meth:`claim`, or the first checkpoint, the directory is the run's; what killed calls of the script left
    half written goes then.

    Args:
        path: the directory; made, if absent, when it is claimed.
        options: the dataclass of options that makes the run. A directory with other options is refused,
            except for the fields named in ``free`` (they change nothing in the result).
        free: names of such fields.
        world: all its processes resume, from a directory that all can read; the main one alone writes.

    Raises:
        ValueError: the directory belongs to a run with other options.
    """

    def __init__(self, path: Path, options: Any, free: tuple[str, ...] = (), world: World = ALONE):
        self.path = path
        self.world = world
        self.history: list[dict[str, Any]] = []
        self.config = config_of(options, free)
        place = getattr(options, PLACE, None)
        self._place = {} if place is None or PLACE not in free else {PLACE: str(Path(place).absolute())}
        self._claimed = not world.is_main
        self._check()

    def bind(self, **splits: ImageSet) -> None:
        """Tie the run to its images, by split; what :meth:`claim` records.

        Raises:
            ValueError: earlier calls were on other images; the message says what has changed.
        """
        if self.world.is_main:
            self._record(IMAGE_SETS, {split: described(images) for split, images in splits.items()})

    def read(self, **files: Path | None) -> dict[str, str]:
        """Tie the run to files that it reads, by the option that names them; :meth:`claim` records them.

        Args:
            files: those that are None are left out.

        Returns:
            Their fingerprints.

        Raises:
            FileNotFoundError: a file that is not there.
            ValueError: earlier calls read other bytes; the message says of which option.
        """
        given = {name: path for name, path in files.items() if path is not None}
        found = {name: file_fingerprint(checks.file(name, path)) for name, path in given.items()}
        if self.world.is_main and found:
            self._record(FILES, found)
        return found

    def _record(self, key: str, value: dict[str, Any]) -> None:
        self.config[key] = value
        self._check()
        # In one order, whether they were taken over or given: killed runs end with the bytes of others.
        self.config.update(
            {name: self.config.pop(name) for name in (IMAGE_SETS, FILES) if name in self.config}
        )

    def claim(self) -> None:
        """Make the directory this run's, once all is there that the run needs.

        Raises:
            ValueError: as on opening, or another process is at work there.
        """
        if not self._claimed:
            self.path.mkdir(parents=True, exist_ok=True)
            hold(self.path)
            self._check()
            remove_abandoned(self.path)
            save_json(self._file, {**self.config, **self._place})
            if self.history:
                self._write_history()
            self._claimed = True

    @property
    def _file(self) -> Path:
        return self.path / "config.json"

    def _check(self) -> None:
        """Compare with what an earlier call has recorded; takes over what it says of images and files."""
        if not self.world.is_main or not self._file.exists():
            return
        before = load_json(self._file)
        if PLACE not in self.config:
            before.pop(PLACE, None)
        recorded: dict[str, Any] = SETS(before.pop(IMAGE_SETS, {}), f"out: {self._file}: {IMAGE_SETS}")
        sets: dict[str, Any] = self.config.setdefault(IMAGE_SETS, recorded)
        if not sets:
            del self.config[IMAGE_SETS]
        read: dict[str, str] = _FINGERPRINTS(before.pop(FILES, {}), f"out: {self._file}: {FILES}")
        files: dict[str, str] = self.config.setdefault(FILES, read)
        if not files:
            del self.config[FILES]
        options = {name: value for name, value in self.config.items() if name not in (IMAGE_SETS, FILES)}
        # A file that both calls read is compared by its bytes, below: where it lies is free.
        same = {name for name in read if before.get(name) and options.get(name)}
        differ = changed_options(_placeless(before, read), _placeless(options, read))
        names = [name for name in differ if name not in same]
        if names:
            raise ValueError(
                f"out: {self.path} holds a run with other {', '.join(names)}; choose another folder"
            )
        if others := sorted(name for name, found in files.items() if read.get(name, found) != found):
            raise ValueError(
                f"out: {self.path} holds a run that read another {', '.join(others)}; bring that file"
                " back, or choose another folder"
            )
        for split in (name for name in sets if name in recorded):
            changed = difference(recorded[split], sets[split])
            if changed:
                raise ValueError(
                    f"out: {self.path} holds a run on other images ({split}: {changed}); bring those back, or"
                    " choose another folder"
                )

    def restore(self) -> dict[str, Any] | None:
        """The last checkpoint's state, or None at the start; brings the history back to that point."""
        file = self.path / "checkpoint.pt"
        if not file.exists():
            return None
        state = load_checkpoint(file)
        self.history = state.pop("history")
        return state

    def checkpoint(self, row: dict[str, Any], state: dict[str, Any]) -> None:
        """Add ``row`` to ``history.jsonl`` and save ``state``; the checkpoint is the truth of both.

        Claims the directory if that was not done before.
        """
        self.claim()
        self.history.append(row)
        if self.world.is_main:
            save_checkpoint(self.path / "checkpoint.pt", {**state, "history": self.history})
            self._write_history()

    def _write_history(self) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in self.history)
        write_atomic(self.path / "history.jsonl", lines.encode())


def config_of(options: Any, free: tuple[str, ...] = ()) -> dict[str, Any]:
    """A dataclass of options as JSON has it, without the fields in ``free``."""
    config = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    return {name: value for name, value in config.items() if name not in free}


def _placeless(options: dict[str, Any], files: Iterable[str]) -> dict[str, Any]:
    """Options whose parts, such as an agent's, say only whether a file was given, not where it lies."""

    def of(part: dict[str, Any]) -> dict[str, Any]:
        return {name: bool(value) if name in files else value for name, value in part.items()}

    return {name: of(value) if isinstance(value, dict) else value for name, value in options.items()}


def changed_options(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Names of the options that differ; one that is absent counts as None."""
    return sorted(name for name in before.keys() | now if before.get(name) != now.get(name))


def machine(world: World = ALONE) -> dict[str, Any]:
    """What the numbers of a run depend on besides its options."""
    device = str(world.device)
    if world.device.type == "cuda":
        device += f" ({torch.cuda.get_device_name(world.device)})"
    return {
        "device": device,
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "python": platform.python_version(),
        **({} if world.size == 1 else {"processes": world.size}),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
