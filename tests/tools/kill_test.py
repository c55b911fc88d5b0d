"""Kill a stage of the pipeline again and again: does it end as if nobody had?

    python -m tests.tools.kill_test --out runs/kill --stage search --kills 10

Runs the stage on a few embedded images, once unbroken and once killed (SIGKILL, no chance to tidy up) at
random moments after its start-up, each time called again with the same options. Every other kill waits
for a checkpoint, so that there is something to resume, and then for a file that is just being written.
Then every file of the two runs is compared: tensors bit for bit, numbers digit for digit, whatever a run
measured in seconds left out. ``--stage experiment`` is all of them, from pre-training to the report; its
latency table is then the unbroken run's, as no clock measures the same twice. Ends with 1 if anything
differs, if a process of the stage outlives a kill, or if no kill came after a checkpoint.
"""

from __future__ import annotations

import shutil
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
from tests.tools.compare_runs import compare_runs, misleading
from tests.tools.life import Life, temporary_files

Stage = Literal[
    "pretrain",
    "baseline",
    "search",
    "search_reinforce",
    "search_blockdrop",
    "search_convnet-aig",
    "finetune",
    "benchmark",
    "experiment",
]
PER_CLASS = {"train": 8, "val": 4, "test": 4}


@dataclass(frozen=True)
class Options:
    """What to kill, and how often."""

    out: Path
    """Directory for the images and both runs; must not hold any yet."""
    stage: Stage = "pretrain"
    """A script; search_reinforce and so on have another agent."""
    kills: int = 10
    checkpoints: int = 10
    """That the stage writes in all: its epochs, or the benchmark's seeds. An experiment has its preset's."""
    seed: int = 0
    """Of the moments."""


EXPERIMENT = """
import sys
from dataclasses import replace
from pathlib import Path
from instanas_env.storage import save_json
from scripts.experiment.plan import Options
from scripts.experiment.run import main
from scripts.experiment.presets import PRESETS
images, out = (Path(argument) for argument in sys.argv[1:])
save_json(out / "config.json", {})
# Without the networks that are timed by the clock, and with few of what is many of a kind; 24 as in the
# other stages.
preset = PRESETS["embedded"]
preset = replace(
    preset,
    dataset="folder",
    widths=(),
    resnet18=None,
    shufflenet_v2=None,
    profile=replace(preset.profile, fitted=150, children=3, repetitions=5),
    one_shot=replace(preset.one_shot, masks=40, images=20),
    evaluate=replace(preset.evaluate, dial=(0.5,), control_masks=3, control_networks=2),
)
for search in ("reinforce", "blockdrop", "convnet_aig", "regression"):
    preset = replace(preset, **{search: replace(getattr(preset, search), num_envs=24)})
main(Options(preset, out, images))
"""
MEASURED = ("latency.json", "stages/profile.json")
"""Files of an experiment that a clock decides."""


def stage_command(stage: Stage, checkpoints: int, images: Path, out: Path) -> list[str]:
    """The command line of a stage on few images, about a second for each checkpoint."""
    if stage == "experiment":
        return [sys.executable, "-c", EXPERIMENT, str(images), str(out)]
    # 24 does not divide the 80 training images: a step crosses from one pass into the next.
    agent = stage.partition("_")[2] or "regression"
    search = f"search {agent} --epochs {checkpoints} --frozen-epochs 2 --num-envs 24"
    if agent == "regression":
        search += " --masks-per-image 2 --replay 7 --passes 3 --augment"
    benchmark = f"benchmark --seeds {checkpoints} --masks 20 --menu 5"
    # At a width of 0.05 oneDNN 3.12 ends the process ("free(): invalid size") in the backward pass of a 1x1
    # convolution of stride 2 from 6 to 12 channels, on a CPU without AVX-512.
    module, *arguments = {
        "pretrain": f"pretrain --search-space lite@0.25 --modules 0 2 --epochs {checkpoints} --batch-size 40",
        "baseline": f"baseline --width 0.125 --epochs {checkpoints} --batch-size 40",
        "finetune": f"finetune --epochs {checkpoints} --batch-size 20",
        "benchmark": f"{benchmark} --steps 240",
    }.get(stage, search).split()
    if stage == "finetune":
        arguments += ["--run", str(shipped("reference/controller.safetensors").parent)]
    place = ["--dataset", "folder", "--data-dir", str(images), "--out", str(out)]
    return [sys.executable, "-m", "scripts", module, *arguments, *place]


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


@dataclass(frozen=True)
class Death:
    """A kill.

    Attributes:
        seconds: after the start-up.
        resumable: whether there was a checkpoint by then.
        while_writing: whether a file was being written.
        orphans: whether a process of the stage lived on.
    """

    seconds: float
    resumable: bool
    while_writing: bool
    orphans: bool


def killed_run(
    command: list[str], run: Path, kills: int, seconds: float, rng: np.random.Generator
) -> Iterator[Death]:
    """Start a stage and kill it ``kills`` times, then let it end, yielding after every kill.

    A moment is uniform in [0, 2 / kills) of ``seconds``, what the unbroken run took, and every other
    kill waits further for what :meth:`Life.kill_after` calls ``while_writing``. A life that ends before
    its moment is not counted: the finished run is moved aside and another begun, so that there are always
    ``kills`` of them.
    """
    done = ended = 0
    while done < kills:
        moment, while_writing = rng.uniform(0, min(1, 2 / kills)) * seconds, done % 2 == 1
        with Life(command, run) as life:
            if life.kill_after(moment, while_writing):
                done += 1
                lived = time.perf_counter() - life.started
                resumable = any(run.rglob("checkpoint.pt"))
                yield Death(lived, resumable, while_writing, life.orphans())
            else:
                life.finish()
                ended += 1
                finished = run.rename(run.with_name(f"{run.name}_ended_{ended}"))
                copy_measured(finished, run)
    with Life(command, run) as life:
        life.finish()


def copy_measured(source: Path, run: Path) -> None:
    """Give a new run what a clock measured in another one, if it did."""
    for name in MEASURED:
        if (source / name).exists():
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, run / name)


def print_deaths(deaths: list[Death], console: Console) -> None:
    """A row for each kill."""
    table = Table("s after start-up", "after a checkpoint", "file being written", "a process lived on")
    for death in deaths:
        flags = (death.resumable, death.while_writing, death.orphans)
        table.add_row(f"{death.seconds:.2f}", *("yes" if flag else "" for flag in flags))
    console.print(table)


def print_comparison(expected: Path, run: Path, console: Console) -> bool:
    """A row for each file; True if nothing differs and nothing is left that a reader could mistake."""
    files, left = list(compare_runs(expected, run)), temporary_files(run)
    table = Table("file", "compared", "differences", title=run.name)
    for file in files:
        table.add_row(file.name, file.compared, "; ".join(file.differences[:3]) or "none")
    console.print(table)
    mistakable = misleading(left)
    console.print(f"{len(left)} temporary files left, {len(mistakable)} that a reader could mistake")
    return not mistakable and not any(file.differences for file in files)


def main(options: Options) -> bool:
    """Run, kill, compare, print; True if every run ended like the unbroken one, and no process lived on."""
    if options.out.exists() and any(options.out.iterdir()):
        raise ValueError(f"out: {options.out} is not empty; choose another folder")
    out, console = options.out.resolve(), Console(width=110)
    write_images(out / "images")

    unbroken, killed = out / "unbroken", out / "killed"
    command = stage_command(options.stage, options.checkpoints, out / "images", killed)
    with Life(command, killed) as life:
        seconds = life.finish()
    killed.rename(unbroken)  # made in the same place, since a run's files tell where its inputs were
    copy_measured(unbroken, killed)
    console.print(f"{options.stage}: {seconds:.1f} s unbroken, start-up not counted")
    rng = np.random.default_rng(options.seed)
    deaths = list(killed_run(command, killed, options.kills, seconds, rng))
    print_deaths(deaths, console)
    same = [print_comparison(unbroken, run, console) for run in sorted(out.glob("killed*"))]
    if not any(death.resumable for death in deaths):
        console.print("no kill came after a checkpoint, so that nothing was resumed: choose more --kills")
        return False
    if any(death.orphans for death in deaths):
        console.print("a process lived on after a kill")
        return False
    console.print("the same" if all(same) else "NOT the same")
    return all(same)


if __name__ == "__main__":
    sys.exit(0 if main(tyro.cli(Options, description=__doc__)) else 1)
