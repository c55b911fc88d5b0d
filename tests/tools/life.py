"""One process of a stage, from its start-up to its end, or to its death at a moment of our choice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
POLL_SECONDS = 0.001


class Life:
    """One process of a stage, from its start to its end or to its death.

    Attributes:
        process: leads a process group of its own, so that what outlives it can be found and ended.
    """

    def __init__(self, command: list[str], run: Path):
        self.run = run
        before = self._written("config.json")
        self._checkpoints = self._written("**/checkpoint.pt")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (run.parent / "errors.txt").open("ab") as errors:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        # A run writes its config.json when all is there that it needs, also if there is one.
        while self.process.poll() is None and self._written("config.json") == before:
            time.sleep(POLL_SECONDS)
        self.started = time.perf_counter()

    def __enter__(self) -> Life:
        return self

    def __exit__(self, *_: object) -> None:
        """An interrupt of this script does not reach another process group: end it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _written(self, pattern: str) -> set[tuple[int, int]]:
        """Which files of this name the run has: one written anew has another inode or time."""
        found = set()
        for path in self.run.glob(pattern):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.add((status.st_ino, status.st_mtime_ns))
        return found

    def finish(self) -> float:
        """Let it end; the seconds it took after its start-up. ``RuntimeError`` if it failed."""
        code = self.process.wait()
        if code:
            raise RuntimeError(f"{self.run} ended with {code}: see {self.run.parent / 'errors.txt'}")
        return time.perf_counter() - self.started

    def kill_after(self, seconds: float, while_writing: bool) -> bool:
        """SIGKILL the process so long after its start-up; False if it ended before.

        Args:
            seconds: to wait.
            while_writing: then wait further, for a checkpoint by this process, so that the next one has
                something to resume, and for a temporary file after it that is not yet renamed.
        """
        present = temporary_files(self.run)
        while self.process.poll() is None:
            passed = time.perf_counter() - self.started >= seconds
            if passed and (not while_writing or self._writes_after_a_checkpoint(present)):
                self.process.send_signal(signal.SIGKILL)
                break
            time.sleep(POLL_SECONDS)
        return self.process.wait() == -signal.SIGKILL

    def _writes_after_a_checkpoint(self, present: set[Path]) -> bool:
        if self._written("**/checkpoint.pt") == self._checkpoints:
            return False
        return bool(temporary_files(self.run) - present)

    def orphans(self, patience_seconds: float = 30.0) -> bool:
        """Whether a process that the stage started lives on after it; ends it if so.

        On a loaded machine a worker needs seconds to import torch, and only then looks for its parent.
        """
        deadline = time.perf_counter() + patience_seconds
        try:
            while time.perf_counter() < deadline:
                os.killpg(self.process.pid, 0)
                time.sleep(POLL_SECONDS)
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


def temporary_files(run: Path) -> set[Path]:
    """What :func:`instanas_env.storage.write_atomic` has begun and not finished."""
    return {path for path in run.rglob(".*") if path.is_file()}
