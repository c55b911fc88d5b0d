"""The main job on the embedded images, in minutes: search with both controllers, compare, report.

    python -m scripts.demo

Starts from the shipped meta-graph. Each controller searches on its own copy of it, in turn with the
meta-graph's training; then everything is measured on the test split, and ``report.html`` shows it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from agents.agent import native
from scripts import evaluate, report, search
from scripts.run_directory import RunDirectory


@dataclass(frozen=True)
class Options:
    """How long to search, and where to write."""

    out: Path = Path("runs/demo")
    epochs: int = 4
    """Passes over the 4,000 training images for each controller."""
    one_shot_masks: int = 80
    """Masks that the one-shot search ranks."""
    control_masks: int = 4
    """Fixed masks sampled on the meta-graph of each search, as controls."""
    control_networks: int = 3
    """Of the controller's own networks, as controls."""
    seed: int = 0
    threads: int = 1
    """Modules are so small here that a second thread slows every one of them down."""


def main(options: Options) -> None:
    """Search twice, then compare; a second call goes on where the first was stopped."""
    start = time.perf_counter()
    torch.set_num_threads(options.threads)
    folders = {
        "regression": search.Options(
            out=options.out / "regression",
            agent="regression",
            epochs=options.epochs,
            frozen_epochs=options.epochs // 2,
            seed=options.seed,
            threads=options.threads,
        ),
        "reinforce": search.Options(
            out=options.out / "reinforce",
            agent="reinforce",
            epochs=options.epochs,
            seed=options.seed,
            threads=options.threads,
        ),
    }
    for one in folders.values():
        run = RunDirectory(one.out, one, free=("out", "data_dir"))
        agent, envs = search.search(one, run)
        search.save_results(one, run, agent, native(envs).bandit.meta_graph)
    evaluate.main(
        evaluate.Options(
            out=options.out,
            runs=tuple(one.out for one in folders.values()),
            one_shot_masks=options.one_shot_masks,
            control_masks=options.control_masks,
            control_networks=options.control_networks,
            seed=options.seed,
            threads=options.threads,
        )
    )
    report.main(report.Options(run=options.out))
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
