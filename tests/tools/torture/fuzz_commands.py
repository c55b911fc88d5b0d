"""Fuzzed command lines, in this process: a small stage with one wrong option is refused before it begins."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from instanas_env.build import shipped
from scripts.__main__ import main
from tests.tools.pipeline_fixtures import image_folder, searched
from tests.tools.torture.our_files import folder
from tests.tools.torture.values import Rng, pick
from tests.tools.torture.verdicts import Case, Lost

PATIENCE_SECONDS = 60
"""For a command that must be refused; one that is accepted would train."""
COUNT = ("-1", "nan", "many", "1.5", "", "1e9", "0x10", "--", "-9" * 30)
RATE = ("nan", "inf", "-inf", "fast", "", "-1", "1e999")
THREADS = (*COUNT, "0")
NO_PATH = ("/nowhere/at/all", "/dev/null", "/tmp")
BAD: dict[str, dict[str, tuple[str, ...]]] = {
    "pretrain": {
        "epochs": COUNT, "batch-size": (*COUNT, "0", "1"), "learning-rate": RATE, "threads": THREADS,
        "seed": COUNT,
        "search-space": ("lite@0", "lite@nan", "cifr", ""), "modules": ("5", "-1", "a"), "teacher": NO_PATH,
        "dataset": ("nope", ""), "data-dir": NO_PATH,
    },
    "search": {
        "epochs": (*COUNT, "0"), "frozen-epochs": COUNT, "num-envs": (*COUNT, "0"), "threads": THREADS,
        "seed": COUNT, "meta-graph-learning-rate": RATE, "wrong-reward": ("nan", "inf", "bad", ""),
        "meta-graph": NO_PATH, "latency-table": NO_PATH, "dataset": ("nope",), "data-dir": NO_PATH,
        "shuffle": ("maybe", ""), "teacher": NO_PATH, "learning-rate": RATE, "menu": NO_PATH,
        "masks-per-image": (*COUNT, "0"), "replay": (*COUNT, "0"), "gradient-steps": (*COUNT, "0"),
        "passes": COUNT,
    },
    "finetune": {
        "epochs": COUNT, "batch-size": (*COUNT, "0", "1"), "learning-rate": RATE, "threads": THREADS,
        "seed": COUNT,
        "run": NO_PATH, "controller": NO_PATH, "prefer": ("speed", ""), "masks": ("some", ""),
        "optimizer": ("sdg",),
    },
    "benchmark": {
        "steps": COUNT, "masks": (*COUNT, "0"), "menu": (*COUNT, "0"), "seeds": (*COUNT, "0"),
        "passes": COUNT, "threads": THREADS,
        "seed": COUNT, "policies": ("nope", "no_module:Policy", "nope.zip", "/nowhere.safetensors"),
        "meta-graph": NO_PATH, "latency-table": NO_PATH,
    },
    "oneshot": {
        "masks": (*COUNT, "0"), "images": (*COUNT, "0"), "finalists": (*COUNT, "0"), "chunk": (*COUNT, "0"),
        "mutations": COUNT, "slowest": ("0", "-1", "nan", "x", ""), "menu": COUNT, "seed": COUNT,
        "threads": THREADS, "meta-graph": NO_PATH, "latency-table": NO_PATH, "dataset": ("nope",),
    },
    "tabulate": {
        "masks": (*COUNT, "0"), "candidates": (*COUNT, "0"), "images": (*COUNT, "0"), "split": ("tset", ""),
        "seed": COUNT, "threads": THREADS, "menu": NO_PATH, "meta-graph": NO_PATH,
    },
    "profile": {
        "fitted": (*COUNT, "0"), "children": COUNT, "repetitions": (*COUNT, "0"), "num-classes": (*COUNT,
        "0"),
        "seed": COUNT, "search-space": ("lite@0", "cifr"), "device": ("hpu", "meta", ""), "backend": ("tpu",),
    },
    "choose": {"run": NO_PATH, "count": (*COUNT, "0", "9"), "snapshots": (*COUNT, "0"), "dials": (*COUNT,
    "0")},
    "evaluate": {"runs": NO_PATH, "meta-graph": NO_PATH, "one-shot": NO_PATH, "alone": NO_PATH,
                 "one-shot-masks": COUNT, "dataset": ("nope",), "backend": ("tpu",), "threads": THREADS},
    "export": {},
}  # fmt: skip
POSITIONAL = {"search": ["regression"], "export": ["/nowhere/at/all"]}
PLACED = ("pretrain", "search", "finetune", "benchmark", "oneshot", "tabulate", "evaluate")
"""Verbs that are told where the images are."""

SEVERAL = ("modules", "split", "policies", "runs", "alone")
"""Options that may also have no value."""


class _TooLong(BaseException):
    """The command went on for longer than a refusal takes."""


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """End what takes too long."""

    def out_of_it(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, out_of_it)
    signal.alarm(PATIENCE_SECONDS)
    try:
        yield
    except _TooLong:
        raise RuntimeError(f"accepted, and still at work after {PATIENCE_SECONDS} s") from None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused(arguments: list[str], out: Path) -> None:
    """Exit code 2, its message as a ValueError, and nothing written; anything else is a RuntimeError."""
    shutil.rmtree(out, ignore_errors=True)
    said, logger = io.StringIO(), logging.getLogger("instanas_env")
    level = logger.level
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), patience():
        try:
            code = main(arguments)
        except SystemExit as stop:  # tyro's
            code = int(stop.code or 0)
    logger.setLevel(level)
    if code != 2:
        raise RuntimeError(f"ended with {code}")
    if out.exists():
        raise Lost(f"the folder: {sorted(path.name for path in out.iterdir())} are in it, after an error")
    raise ValueError(said.getvalue())


def commands_case(rng: Rng) -> Case:
    """One wrong value, an unknown option, an option without value, or one that is left out."""
    verb = pick(rng, [verb for verb in BAD if BAD[verb]])
    out = folder() / "command"
    place = ["--dataset", "folder", "--data-dir", str(image_folder())] if verb in PLACED else []
    where = [] if verb == "choose" else ["--out", str(out)]
    name = pick(rng, list(BAD[verb]))
    runs = {"finetune": shipped("reference/data.json").parent, "choose": searched("regression")}
    run = ["--run", str(runs[verb])] if verb in runs and name != "run" else []
    run += ["--num-envs", "16"] if verb == "search" and name != "num-envs" else []
    base = [verb, *POSITIONAL.get(verb, []), *place, *where, *run]
    kind = rng.random()
    if kind < 0.08:
        name = "colour"
        arguments = [*base, "--colour", "red"]
    elif kind < 0.12 and name not in SEVERAL:
        arguments = [*base, f"--{name}"]
    else:
        value = pick(rng, BAD[verb][name])
        arguments = [*base, f"--{name}={value}"] if rng.random() < 0.5 else [*base, f"--{name}", value]
        names = (name, name.replace("-", "_"), *([value] if len(value) > 3 else []))
        told = "`instanas " + " ".join(map(repr, arguments)) + "`"
        return Case(told, lambda: refused(arguments, out), names, False)
    told = "`instanas " + " ".join(map(repr, arguments)) + "`"
    return Case(told, lambda: refused(arguments, out), (name, name.replace("-", "_")), False)
