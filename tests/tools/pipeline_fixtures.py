"""A tiny world for the tests of the pipeline: 160 images in a folder, and runs on it that are made once.

Plain functions that remember their answer, for the whole session: what they made must be left as it is.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from scripts import evaluate, search
from scripts import search_options as search_options_of
from tests.tools.kill_test import write_images

ROOT = Path(__file__).parent.parent.parent


@functools.cache
def home() -> Path:
    """A directory that goes when the session ends."""
    path = Path(tempfile.mkdtemp(prefix="instanas_tests_"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def image_folder() -> Path:
    """Embedded images as ``<split>/<class>/*.png``; ten classes, so that the shipped weights fit."""
    root = home() / "images"
    write_images(root)
    return root


def search_options(
    out: Path, agent: str, its_own: dict[str, Any] | None = None, **changes: Any
) -> search_options_of.Options:
    """Three passes over 80 images, five steps each, the meta-graph frozen in the first."""
    made = search_options_of.AGENTS[agent](**(its_own or {}))
    chosen = {"epochs": 3, "frozen_epochs": 1, "num_envs": 16, "threads": 1, **changes}
    return search_options_of.Options(out=out, agent=made, dataset="folder", data_dir=image_folder(), **chosen)


@functools.cache
def searched(agent: str) -> Path:
    """The directory of a search that nobody stopped."""
    options = search_options(home() / agent, agent)
    search.main(options)
    return options.out


@functools.cache
def evaluated() -> Path:
    """The directory of a comparison that includes both searches."""
    options = evaluate.Options(
        out=home() / "evaluation",
        runs=(searched("regression"), searched("reinforce")),
        dataset="folder",
        data_dir=image_folder(),
        dial=(0.4, 0.8),
        one_shot_masks=10,
        one_shot_limits=(0.6, 1.0),
        control_masks=3,
        control_networks=4,
        time_real=False,
        threads=1,
    )
    evaluate.main(options)
    return options.out


def history(out: Path) -> list[dict[str, Any]]:
    """The rows of a run's history but for the time they took."""
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def read_strictly(path: Path) -> Any:
    """A JSON file as other languages read it: ``ValueError`` for NaN and Infinity, which JSON has not.

    Without the checksum, which is that of options and paths as well.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{path.name}: {constant} is not JSON")

    content = json.loads(path.read_text(), parse_constant=refuse)
    content.pop("sha256", None)
    return content


def command_line(verb: str, options: Any) -> list[str]:
    """What one types for options: those that are not the defaults."""

    def changed(options: Any) -> Iterator[str]:
        for field in fields(options):
            value = getattr(options, field.name)
            if field.name != "agent" and (field.default is MISSING or value != field.default):
                values = value if isinstance(value, tuple) else (value,)
                yield from ("--" + field.name.replace("_", "-"), *map(str, values))

    agent = getattr(options, "agent", None)
    own = [] if agent is None else [agent.name, *changed(agent)]
    return [sys.executable, "-m", "scripts", verb, *own, *changed(options)]


def kill_after_first_checkpoint(verb: str, options: Any) -> None:
    """Run a verb with ``options`` and SIGKILL it at some moment after its first checkpoint."""
    command = command_line(verb, options)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        while not (options.out / "checkpoint.pt").exists():
            assert process.poll() is None, f"ended with {process.returncode} before its first checkpoint"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
