"""The options of an experiment, and the names of its stages."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from scripts.experiment.presets import Preset
from scripts.options import Compute

StageName = Literal["pretrain", "baseline", "profile", "search", "choose", "finetune", "evaluate", "report"]
STAGES: tuple[StageName, ...] = get_args(StageName)
TRAINING: tuple[StageName, ...] = ("pretrain", "baseline", "search", "finetune")


@dataclass(frozen=True)
class Options(Compute):
    """Which experiment, on what, and where to."""

    preset: Annotated[Preset, tyro.conf.arg(name="")]
    out: Path
    """Directory of the run; every stage writes into it."""
    data_dir: Path | None = None
    """Where the images are, see instanas_env.data.load_images."""
    _: KW_ONLY
    stages: tuple[StageName, ...] = STAGES
    """Those to run, in this order."""
    dry_run: bool = False
    """Only print what would run."""
    seed: int = 0
    """The first, where a preset has several."""
    threads: int = 1
    """Of every stage but the report and the latency table, which is always measured with one."""
    workers: int = 1
    """Stages that run at a time, a process each, where they need nothing of each other: the networks trained
    alone, the searches, the fine-tuning. What they print is then in the stages folder of the run."""
