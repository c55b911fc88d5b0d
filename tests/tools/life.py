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
ENDS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
"""What a stage's exit code is after a signal."""


class Life:
    """One process of a stage, from its start to its end or to its death.

    Args:
        command: of the stage.
        run: the directory that it writes.
        claims: whether it writes a config.json there when all is there that it needs, which is then the end
            of its start-up; else that is when it has learnt to be stopped.

    Attributes:
        process: leads a process group of its own, so that what outlives it can be found and ended.
    """

    def __init__(self, command: list[str], run: Path, claims: bool = True):
        self.run, self._claims = run, claims
        before = self._written("config.json")
        self._checkpoints = self._written("**/checkpoint.pt")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (run.parent / "errors.txt").open("ab") as errors:
            self._start = errors.tell()
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                # A shell ignores Ctrl-C for what it runs in the background, and so would all processes below.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        # A run writes its config.json anew also if there is one.
        while self.process.poll() is None and not (
            self._written("config.json") != before if claims else self._can_be_stopped()
        ):
            time.sleep(POLL_SECONDS)
        self.started = time.perf_counter()

    def __enter__(self) -> Life:
        return self

    def __exit__(self, *_: object) -> None:
        """An interrupt of this script does not reach another process group: end it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _can_be_stopped(self) -> bool:
        """Whether the process has a handler for SIGTERM by now, as Linux tells it."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:  # it has ended, or this is no Linux
            return True
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    def said(self) -> str:
        """What the process has written to its standard error."""
        return (self.run.parent / "errors.txt").read_bytes()[self._start :].decode(errors="replace")

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

    def kill_after(
        self, seconds: float, while_writing: bool, number: signal.Signals = signal.SIGKILL
    ) -> bool:
        """Stop the process so long after its start-up; False if it ended otherwise than by that.

        Args:
            seconds: to wait.
            while_writing: then wait further, for a checkpoint by this process, so that the next one has
                something to resume, and for a temporary file after it that is not yet renamed.
            number: the signal.
        """
        present = temporary_files(self.run)
        while self.process.poll() is None:
            passed = time.perf_counter() - self.started >= seconds
            if passed and (not while_writing or self._writes_after_a_checkpoint(present)):
                self.process.send_signal(number)
                break
            time.sleep(POLL_SECONDS)
        return self.process.wait() == ENDS[number]

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
