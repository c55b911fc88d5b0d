"""Kill a stage of the pipeline again and again: does it end as if nobody had?

    python -m scripts.kill_test --out runs/kill --stage search --kills 10

Runs the stage on a few embedded images, once unbroken and once killed (SIGKILL, no chance to tidy up) at
random moments after its start-up, each time called again with the same options. Every other kill waits
for a file that is just being written. Then every file of the two runs is compared: tensors bit for bit,
numbers digit for digit, whatever a run measured in seconds left out. Ends with 1 if anything differs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

from instanas_env.build import shipped
from instanas_env.data import load_images
from scripts.compare_runs import compare_runs, misleading

Stage = Literal["pretrain", "search", "search_reinforce", "finetune", "benchmark", "benchmark_workers"]
ROOT = Path(__file__).parent.parent
PER_CLASS = {"train": 8, "val": 4, "test": 4}
POLL_SECONDS = 0.001


@dataclass(frozen=True)
class Options:
    """What to kill, and how often."""

    out: Path
    """Directory for the images and both runs; must not hold any yet."""
    stage: Stage = "pretrain"
    """A script; search_reinforce has the paper's agent, benchmark_workers two processes."""
    kills: int = 10
    checkpoints: int = 10
    """That the stage writes in all: its epochs, or the benchmark's seeds."""
    seed: int = 0
    """Of the moments."""


def stage_command(stage: Stage, checkpoints: int, images: Path, out: Path) -> list[str]:
    """The command line of a stage on few images, about a second for each checkpoint."""
    # 24 does not divide the 80 training images: a step crosses from one pass into the next.
    search = f"search --epochs {checkpoints} --frozen-epochs 2 --num-envs 24"
    benchmark = f"benchmark --seeds {checkpoints} --total-timesteps 240 --num-envs 24 --menu 5"
    benchmark += " --one-shot-masks 20 --one-shot-images 20"
    module, *arguments = {
        "pretrain": f"pretrain --width 0.25 --modules 0 2 3 --epochs {checkpoints} --batch-size 20",
        "search": search,
        "search_reinforce": f"{search} --agent reinforce",
        "finetune": f"finetune --epochs {checkpoints} --batch-size 20",
        "benchmark": benchmark,
        "benchmark_workers": f"{benchmark} --workers 2",
    }[stage].split()
    if stage == "finetune":
        arguments += ["--run", str(shipped("searched_regression/controller.safetensors").parent)]
    place = ["--dataset", "folder", "--data-dir", str(images), "--out", str(out)]
    return [sys.executable, "-m", f"scripts.{module}", *arguments, *place]


def write_images(root: Path) -> None:
    """Embedded images as ``<split>/<class>/*.png``; ten classes, so that the shipped weights fit."""
    for split, count in PER_CLASS.items():
        image_set = load_images("embedded", split)
        for label in range(len(image_set.classes)):
            place = root / split / str(label)
            place.mkdir(parents=True)
            index = (image_set.labels == label).nonzero().flatten()[:count]
            for i, image in zip(index.tolist(), image_set.images[index], strict=True):
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{i:04}.png")


class Life:
    """One process of a stage, from its start to its end or to its death.

    Attributes:
        process: leads a process group of its own, so that what outlives it can be found and ended.
    """

    def __init__(self, command: list[str], run: Path):
        self.run = run
        before = self._config_file()
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
        # A run writes its config.json as soon as Python has imported everything, also if there is one.
        while self.process.poll() is None and self._config_file() == before:
            time.sleep(POLL_SECONDS)
        self.started = time.perf_counter()

    def __enter__(self) -> Life:
        return self

    def __exit__(self, *_: object) -> None:
        """An interrupt of this script does not reach another process group: end it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _config_file(self) -> tuple[int, int] | None:
        """Which file config.json is: a new one has another inode or time."""
        try:
            status = (self.run / "config.json").stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

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
            while_writing: then wait further, for a temporary file that it has not yet renamed.
        """
        present = temporary_files(self.run)
        while self.process.poll() is None:
            passed = time.perf_counter() - self.started >= seconds
            if passed and (not while_writing or temporary_files(self.run) - present):
                self.process.send_signal(signal.SIGKILL)
                break
            time.sleep(POLL_SECONDS)
        return self.process.wait() == -signal.SIGKILL

    def orphans(self, patience_seconds: float = 2.0) -> bool:
        """Whether a process that the stage started lives on after it; ends it if so."""
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


def rows_of(run: Path) -> int:
    """Checkpoints so far, by the history."""
    history = run / "history.jsonl"
    return len(history.read_text().splitlines()) if history.exists() else 0


@dataclass(frozen=True)
class Death:
    """A kill: seconds after start-up, rows of the history by then, whether a file was being written,
    whether a process of the stage lived on."""

    seconds: float
    checkpoints: int
    while_writing: bool
    orphans: bool


def killed_run(
    command: list[str], run: Path, kills: int, seconds: float, rng: np.random.Generator
) -> Iterator[Death]:
    """Start a stage and kill it ``kills`` times, then let it end, yielding after every kill.

    A moment is uniform in [0, 2 / kills) of ``seconds``, what the unbroken run took: some lives make
    progress, some do not. A life that ends before its moment is not counted: the run is then begun anew
    in an empty directory (the finished one is moved aside), so that there are always ``kills`` of them.
    """
    done = ended = 0
    while done < kills:
        moment, while_writing = rng.uniform(0, 2 / kills) * seconds, done % 2 == 1
        with Life(command, run) as life:
            if life.kill_after(moment, while_writing):
                done += 1
                lived = time.perf_counter() - life.started
                yield Death(lived, rows_of(run), while_writing, life.orphans())
            else:
                life.finish()
                ended += 1
                run.rename(run.with_name(f"{run.name}_ended_{ended}"))
    with Life(command, run) as life:
        life.finish()


def main(options: Options) -> bool:
    """Run, kill, compare, print; True if every run ended like the unbroken one."""
    if options.out.exists() and any(options.out.iterdir()):
        raise ValueError(f"out: {options.out} is not empty; choose another folder")
    out, console = options.out.resolve(), Console(width=110)
    write_images(out / "images")
    unbroken, killed = out / "unbroken", out / "killed"
    commands = {
        run: stage_command(options.stage, options.checkpoints, out / "images", run)
        for run in (unbroken, killed)
    }
    with Life(commands[unbroken], unbroken) as life:
        seconds = life.finish()
    console.print(f"{options.stage}: {seconds:.1f} s unbroken, start-up not counted")

    deaths = Table("s after start-up", "checkpoints by then", "file being written", "a process lived on")
    orphans = 0
    rng = np.random.default_rng(options.seed)
    for death in killed_run(commands[killed], killed, options.kills, seconds, rng):
        orphans += death.orphans
        writing, lived_on = ("yes" if flag else "" for flag in (death.while_writing, death.orphans))
        deaths.add_row(f"{death.seconds:.2f}", str(death.checkpoints), writing, lived_on)
    console.print(deaths)

    same = orphans == 0
    for run in sorted(out.glob("killed*")):
        verdicts = Table("file", "compared", "differences", title=run.name)
        for file in compare_runs(unbroken, run):
            verdicts.add_row(file.name, file.compared, "; ".join(file.differences[:3]) or "none")
            same &= not file.differences
        console.print(verdicts)
        left = temporary_files(run)
        mistakable = misleading(left)
        console.print(f"{len(left)} temporary files left, {len(mistakable)} that a reader could mistake")
        same &= not mistakable
    console.print("the same" if same else "NOT the same")
    return same


if __name__ == "__main__":
    sys.exit(0 if main(tyro.cli(Options, description=__doc__)) else 1)
