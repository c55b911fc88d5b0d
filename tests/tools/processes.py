"""What torchrun starts for tests/test_distributed.py: all stages, one after another, in one world.

torchrun --nproc_per_node 2 tests/processes.py IMAGES OUT
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instanas_env.build import shipped
from instanas_env.training.distributed import ALONE, World, launch
from scripts import finetune, pretrain, search
from scripts import search_options as search_options_of
from scripts.experiment.stage import Stage


def search_options(images: Path, out: Path, agent: str, **changes: Any) -> search_options_of.Options:
    """24 does not divide the 80 images: a step crosses into the next pass, and a record has 96 entries."""
    chosen = {"epochs": 2, "frozen_epochs": 1, "num_envs": 24, **changes}
    return search_options_of.Options(
        out=out, agent=search_options_of.AGENTS[agent](), dataset="folder", data_dir=images, **chosen
    )


def stages(images: Path, out: Path) -> dict[str, tuple[Callable[..., None], Any]]:
    """Every stage's ``main`` and options. 27 images a step: two processes have 13 and 14 of them.

    The learning rate is tiny where weights are new: there rounding grows tenfold with every step.
    """
    fit: dict[str, Any] = {"dataset": "folder", "data_dir": images, "batch_size": 27, "epochs": 1}
    new = pretrain.Options(
        out / "pretrain", search_space="lite@0.5", modules=(0, 2), learning_rate=1e-4, **fit
    )
    shipped_run = shipped("reference/controller.safetensors").parent
    tuned = finetune.Options(
        shipped_run, out / "finetune", teacher=shipped("mobilenet_v2.safetensors"), **fit
    )
    return {
        "pretrain": (pretrain.main, new),
        "regression": (search.main, search_options(images, out / "regression", "regression")),
        "reinforce": (search.main, search_options(images, out / "reinforce", "reinforce")),
        "finetune": (finetune.main, tuned),
    }


def run_stages(images: Path, out: Path, world: World = ALONE) -> None:
    """All of them."""
    for name, (main, options) in stages(images, out).items():
        made = out / name / "meta_graph.safetensors"
        Stage(name, name, main, options, made).run(out / "notes", world)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "epoch .* no latency fell inside")
    images, out = map(Path, sys.argv[1:])
    with launch() as world:
        run_stages(images, out, world)
        search.main(search_options(images, out / "killed", "regression"), world)
