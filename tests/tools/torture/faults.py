"""Callbacks that raise at random, and disks that fail at random: nothing is lost, and it goes on."""

from __future__ import annotations

import builtins
import errno
import functools
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from instanas_env import atomic
from instanas_env.training.run_directory import RunDirectory
from scripts import search
from scripts.search_options import Options as SearchOptions
from tests.tools.compare_runs import compare_runs
from tests.tools.faulty import IMAGES, Faulty, equal, make, play, taught
from tests.tools.life import temporary_files
from tests.tools.pipeline_fixtures import search_options, searched
from tests.tools.torture.our_files import folder, kinds, same, whole
from tests.tools.torture.values import Rng, pick
from tests.tools.torture.verdicts import Case, Lost

MODES = ("SameStep", "NextStep", "Disabled")
ERRORS = (OSError, RuntimeError, KeyboardInterrupt, MemoryError, ZeroDivisionError)

# --- callbacks -----------------------------------------------------------------------------------------


@functools.cache
def undisturbed(mode: str, steps: int) -> tuple[list[Any], list[int], int]:
    """What is shown and told where no callback raises."""
    callback = Faulty()
    shown = play(make(callback, mode=mode), steps)
    return shown[:-1], callback.seen, callback.ends


def play_with(where: str, at: int, mode: str, steps: int, error: type[BaseException]) -> None:
    """One of three callbacks raises; images, steps and epochs are as if none had."""
    faulty, others = Faulty(where, at, error), (Faulty(), Faulty())
    envs = make(others[0], faulty, others[1], mode=mode)
    shown = play(envs, steps, error)[:-1]
    expected, seen, ends = undisturbed(mode, steps)
    if not all(np.array_equal(a, b) for a, b in zip(shown, expected, strict=True)):
        raise Lost("other images were shown than without the error")
    for callback in (*others, faulty):
        if callback.seen != seen or callback.ends != ends:
            raise Lost(
                f"told of {len(callback.seen)} images and {callback.ends} epochs, not {len(seen)}, {ends}"
            )
    if len(seen) != steps * 4 or np.bincount(seen, minlength=IMAGES).max() > -(-steps * 4 // IMAGES):
        raise Lost("an image was counted twice")


def train_with(at: int, error: type[BaseException]) -> None:
    """A batch of the meta-graph's training raises; weights are as before, and in the end as if it had not."""
    envs, update, states = taught(at, error)
    expected, other, _ = taught_undisturbed()
    if states and not equal(states[0], states[1]):
        raise Lost("weights, optimizer, mode or history, half trained")
    if not equal(envs.bandit.meta_graph.state_dict(), expected.bandit.meta_graph.state_dict()):
        raise Lost("the weights after going on are not those of an undisturbed run")
    if not equal(update.history, other.history) or not equal(envs.state_dict(), expected.state_dict()):
        raise Lost("history or state after going on are not those of an undisturbed run")


@functools.cache
def taught_undisturbed() -> Any:
    return taught(0)


def callbacks_case(rng: Rng) -> Case:
    """A hook or a batch of training that raises at a random moment."""
    error = pick(rng, ERRORS)
    if rng.random() < 0.1:
        at = int(rng.integers(1, 7))
        return Case(
            f"batch {at} of training raises {error.__name__}", lambda: train_with(at, error), (), True
        )
    where, mode = pick(rng, ("step", "epoch")), pick(rng, MODES)
    steps, at = int(rng.integers(2, 12)), int(rng.integers(1, 8))
    call = functools.partial(play_with, where, at, mode, steps, error)
    return Case(f"on_{where} {at} raises {error.__name__}, {mode}, {steps} steps", call, (), True)


# --- disks ---------------------------------------------------------------------------------------------

CODES = (errno.ENOSPC, errno.EACCES, errno.EIO, errno.EROFS, errno.EDQUOT)
PLACES = ("write", "short write", "fsync", "replace", "mkstemp", "chmod", "mkdir")


class _Failing(io.BufferedWriter):
    """Writes half of what it is given, then has no more room."""

    short = False
    code = errno.ENOSPC

    def write(self, content: Any) -> int:
        if self.short:
            super().write(bytes(content)[: len(content) // 2])
        raise OSError(self.code, os.strerror(self.code))


@contextmanager
def failing_disk(place: str, code: int, at: int) -> Iterator[None]:
    """From its ``at``-th call on (from 1) one of the functions under storage.py fails, for one call."""
    left = at

    def fails(*_: Any, **__: Any) -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if fails():
                raise OSError(code, os.strerror(code))
            return real(*arguments, **named)

        return call

    def opened(handle: int, mode: str = "r", *more: Any, **named: Any) -> Any:
        if "w" not in mode or not fails():
            return real_fdopen(handle, mode, *more, **named)
        file = _Failing(io.FileIO(handle, "wb"))
        file.short, file.code = place == "short write", code
        return file

    real_fdopen = os.fdopen
    with ExitStack() as stack:
        if place in ("write", "short write"):
            stack.enter_context(mock.patch.object(os, "fdopen", opened))
        elif place == "mkstemp":
            stack.enter_context(mock.patch.object(atomic.tempfile, "mkstemp", failing(tempfile.mkstemp)))
        else:
            stack.enter_context(mock.patch.object(os, place, failing(getattr(os, place))))
        yield


def write_with(kind: str, place: str, code: int) -> None:
    """A file is written anew on a failing disk: the old one stays, and a second try writes the new one."""
    path = folder() / "disk" / kinds()[kind].path.name
    path.parent.mkdir(exist_ok=True)
    content = kinds()[kind].path.read_bytes()
    old = b"what was there before"
    path.write_bytes(old)
    try:
        with failing_disk(place, code, 1):
            atomic.write_atomic(path, content)
    except OSError as error:
        if path.read_bytes() != old:
            raise Lost(f"the old file, after {error}") from error
        if temporary_files(path.parent):
            raise Lost(f"a temporary file was left: {temporary_files(path.parent)}") from error
        atomic.write_atomic(path, content)
        if not same(kinds()[kind].load(path), whole(kind)):
            raise Lost("the second try wrote something else") from error
        raise
    if not same(kinds()[kind].load(path), whole(kind)):  # nothing failed that mattered
        raise Lost("no error, but another content")


def stage_with(place: str, code: int, at: int) -> None:
    """A search on a disk that fails once, called again: the same files as of one on a good disk."""
    out = Path(tempfile.mkdtemp(prefix="instanas-disk-"))
    options: SearchOptions = search_options(out / "regression", "regression")
    failed: OSError | None = None
    try:
        with failing_disk(place, code, at):
            search.main(options)
    except OSError as error:
        failed = error
        search.main(options)
    files = [each for each in compare_runs(searched("regression"), options.out) if each.differences]
    lost = [f"{each.name}: {each.differences[:2]}" for each in files if each.name != "config.json"]
    if lost:
        raise Lost("; ".join(lost))
    if failed is not None:
        raise failed


def run_directory_with(place: str, code: int, at: int) -> None:
    """A run's checkpoints on a disk that fails once: the history has each row once, in the end."""
    from dataclasses import make_dataclass

    out = Path(tempfile.mkdtemp(prefix="instanas-disk-"))
    options = make_dataclass("Options", [("epochs", int)])(5)

    def go_on() -> list[Any]:
        run = RunDirectory(out, options)
        run.restore()
        for epoch in range(len(run.history), 5):
            run.checkpoint({"epoch": epoch}, {"epoch": epoch})
        return RunDirectory(out, options).restore() and run.history  # type: ignore[return-value]

    failed: OSError | None = None
    try:
        with failing_disk(place, code, at):
            found = go_on()
    except OSError as error:
        failed, found = error, go_on()
    lines = (out / "history.jsonl").read_text().splitlines()
    if found != [{"epoch": epoch} for epoch in range(5)] or len(lines) != 5:
        raise Lost(f"the history is {found}, the file has {len(lines)} lines")
    if failed is not None:
        raise failed


def disk_case(rng: Rng) -> Case:
    """A write, a run of five checkpoints or, now and then, a whole search."""
    place, code, at = pick(rng, PLACES), pick(rng, CODES), int(rng.integers(1, 14))
    kind, chance = pick(rng, list(kinds())), rng.random()
    named = (builtins.OSError,)
    told = f"{errno.errorcode[code]} in {place}"
    if chance < 0.7:
        call = functools.partial(write_with, kind, place, code)
        return Case(f"{told}, {kind}", call, (kinds()[kind].path.name,), None, named)
    stage = stage_with if chance > 0.99 else run_directory_with
    call = functools.partial(stage, place, code, at)
    files = ("config.json", "checkpoint.pt", "history.jsonl", ".safetensors", "data.json", "latency.json")
    return Case(f"{told}, call {at}, {stage.__name__}", call, files, None, named)
