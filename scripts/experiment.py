"""The paper's experiment, whole, in one directory: every stage from pre-training to the report.

    python -m scripts.experiment laptop-cifar10 --data-dir data/cifar10 --dry-run
    python -m scripts.experiment laptop-cifar10 --data-dir data/cifar10 --out runs/laptop

The preset comes first; its numbers can be changed one by one (``--pretrain.epochs 5``). Killed at any
moment and called again with the same options, it goes on where it was: finished stages are passed over,
and the one that was stopped resumes. ``--stages`` runs some of them, ``--workers 2`` two at a time where that
is possible. ``--dry-run`` prints what would run, and how long it might take on this machine. The stages that
train also run under torchrun (``--stages pretrain``), see instanas_env.distributed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from instanas_env.distributed import ALONE, World, launch
from scripts import dry_run
from scripts.plan import Plan
from scripts.presets import PRESETS, Preset
from scripts.stage import run_together

StageName = Literal[
    "pretrain",
    "train_baseline",
    "profile_latency",
    "search",
    "choose",
    "finetune",
    "evaluate",
    "report",
]
STAGES: tuple[StageName, ...] = get_args(StageName)
TRAINING: tuple[StageName, ...] = ("pretrain", "train_baseline", "search", "finetune")


@dataclass(frozen=True)
class Options:
    """Which experiment, on what, and where to."""

    preset: Annotated[Preset, tyro.conf.arg(name="")]
    out: Path
    """Directory of the run; every stage writes into it."""
    data_dir: Path | None = None
    """Where the images are, see instanas_env.data.load_images."""
    stages: tuple[StageName, ...] = STAGES
    """Those to run, of pretrain, train_baseline, profile_latency, search, choose, finetune, evaluate,
    report."""
    dry_run: bool = False
    """Only print what would run."""
    seed: int = 0
    """The first, where a preset has several."""
    threads: int = 1
    """Of every stage but the report and the latency table, which is always measured with one."""
    workers: int = 1
    """Stages that run at a time, a process each, where they need nothing of each other: the networks trained
    alone, the searches, the fine-tuning. What they print is then in the stages folder of the run."""


def main(options: Options, world: World = ALONE) -> None:
    """Run the stages that are asked for, or print them."""
    if options.workers < 1 or (options.workers > 1 and world.size > 1):
        will_do = "at least 1" if world.size == 1 else "under torchrun 1"
        raise ValueError(f"workers: got {options.workers}; {will_do} will do")
    if world.size > 1 and not set(options.stages) <= set(TRAINING):
        raise ValueError(
            f"stages: got {', '.join(options.stages)}; under torchrun {', '.join(TRAINING)} will do, and the"
            " others without it"
        )
    groups = ([stage for stage in group if stage.name in options.stages] for group in Plan(options).groups())
    if options.dry_run:
        dry_run.show(options.preset, list(groups), options.threads, options.workers)
        return
    for group in groups:
        run_together(group, options.out / "stages", options.workers, world)


def parse(arguments: list[str] | None = None) -> Options:
    """Options from the command line: a preset's name, then what is to differ from it."""
    choices = {
        name: (preset_line(preset), Options(preset, Path("runs") / name)) for name, preset in PRESETS.items()
    }
    return tyro.extras.overridable_config_cli(choices, description=__doc__, args=arguments)


def preset_line(preset: Preset) -> str:
    """What a preset is, for the list of them."""
    return f"{preset.dataset}, search space {preset.search_space}: {', '.join(preset.agents)}"


if __name__ == "__main__":
    chosen = parse()
    with launch() as world:
        main(chosen, world)
