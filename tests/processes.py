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
from instanas_env.distributed import launch
from scripts import finetune, pretrain, search


def search_options(images: Path, out: Path, agent: str, **changes: Any) -> search.Options:
    """Three epochs; 24 does not divide the 80 images, so that a step crosses from one pass into the next."""
    chosen = {"epochs": 3, "frozen_epochs": 1, "num_envs": 24, **changes}
    return search.Options(out=out, agent=agent, dataset="folder", data_dir=images, **chosen)


def stages(images: Path, out: Path) -> dict[str, tuple[Callable[..., None], Any]]:
    """Every stage's ``main`` and options. 27 images a step: two processes have 13 and 14 of them."""
    fit: dict[str, Any] = {"dataset": "folder", "data_dir": images, "batch_size": 27, "epochs": 2}
    return {
        "pretrain": (
            pretrain.main,
            pretrain.Options(out / "pretrain", width=0.25, modules=(0, 2), learning_rate=0.05, **fit),
        ),
        "regression": (search.main, search_options(images, out / "regression", "regression")),
        "reinforce": (search.main, search_options(images, out / "reinforce", "reinforce")),
        "blockdrop": (
            search.main,
            search_options(images, out / "blockdrop", "blockdrop", epochs=1, curriculum_epochs=1),
        ),
        "finetune": (
            finetune.main,
            finetune.Options(
                shipped("searched_regression/controller.safetensors").parent,
                out / "finetune",
                teacher=shipped("mobilenet_v2.safetensors"),
                **fit,
            ),
        ),
    }


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "epoch .* no latency fell inside")
    arguments = [Path(argument) for argument in sys.argv[1:]]
    with launch() as world:
        for main, options in stages(*arguments).values():
            main(options, world)
