"""OneshotNAS (section 4.2): 10,000 masks at random, ranked on validation; the frontier of the best.

    instanas oneshot --out runs/one_shot --meta-graph runs/meta_graph/meta_graph.safetensors
    instanas evaluate --out runs/evaluation --one-shot runs/one_shot
    instanas finetune --run runs/search --one-shot runs/one_shot --from-scratch --out runs/fixed_alone

The last trains the best of them that is no slower than the controller of a search, alone.
All masks are ranked on some validation images, the best of them again on all (successive halving), which
saves most of the time: a mask that is among the best but was unlucky on the first images is lost,
and all accuracies in the file are of all images. Resumes where it was. Writes ``one_shot.json``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from agents.evaluation.picks import non_dominated
from agents.one_shot import OneShotSearch, best_layers
from instanas_env import paper
from instanas_env.search_space import SearchSpace
from instanas_env.storage import save_json
from instanas_env.training.run_directory import FREE, RunDirectory, machine
from scripts.begin import begin, frozen_bandits
from scripts.comparison.fixed import FRONTIER
from scripts.options import Compute, Data, Folder, Weights


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """How many to rank, and how closely; an experiment has these in its preset."""

    masks: int = paper.ONE_SHOT_MASKS
    """Sampled, at every density; the cheapest path is ranked as well: the frontier reaches down to it."""
    images: int = 500
    """Validation images that all of them are ranked on."""
    finalists: int = 200
    """The best, which are ranked on all validation images."""
    chunk: int = 100
    """Masks between two checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Options(Numbers, Compute, Weights, Data, Folder):
    """What to rank, on which images."""

    seed: int = 0


def search(options: Options, run: RunDirectory) -> tuple[SearchSpace, list[dict[str, Any]]]:
    """Rank what is not ranked yet; gives the space and the frontier of the finalists, slow to fast."""
    (bandit,) = frozen_bandits(options, ("val",), run.world.device)
    val, table = bandit.image_set, bandit.latency_table
    run.read(meta_graph=options.weights_file, latency_table=options.table_file)
    run.bind(val=val)
    first = OneShotSearch(bandit, options.seed, options.images)
    run.claim()
    masks = torch.cat([first.known(), first.sample(options.masks)])
    accuracy = rank(first, masks, "sampled", options.chunk, run)
    finalists = masks[best_layers(accuracy, table.lookup(masks).tolist(), options.finalists)]
    accuracy = rank(OneShotSearch(bandit, images=len(val)), finalists, "finalists", options.chunk, run)
    latency_ms = table.lookup(finalists).tolist()
    return bandit.space, [
        {
            "mask": "".join(str(int(bit)) for bit in finalists[i].flatten().tolist()),
            "accuracy": accuracy[i],
            "latency_ms": latency_ms[i],
        }
        for i in non_dominated(accuracy, latency_ms)
    ]


def rank(one_shot: OneShotSearch, masks: Tensor, name: str, chunk: int, run: RunDirectory) -> list[float]:
    """The accuracy of each mask, a checkpoint after each chunk; those of earlier calls from the history."""
    accuracy = [value for row in run.history if row["round"] == name for value in row["accuracy"]]
    parts = masks[len(accuracy) :].split(chunk) if len(accuracy) < len(masks) else ()
    for part in track(parts, f"one-shot search, {name}", total=len(parts)):
        found = [candidate.accuracy for candidate in one_shot.rank_masks(part)]
        run.checkpoint({"round": name, "accuracy": found}, {})
        accuracy += found
    return accuracy


def main(options: Options) -> None:
    """Search to the end, or from where an earlier call was stopped."""
    world = begin(options)
    run = RunDirectory(options.out, options, free=FREE, world=world)
    run.restore()
    space, frontier = search(options, run)
    made = {"options": run.config, "machine": machine(world), "search_space": space.config}
    save_json(options.out / FRONTIER, {**made, "frontier": frontier})
    for row in frontier:
        print(f"{row['latency_ms']:7.3f} ms  {100 * row['accuracy']:.1f} %")
    print(f"wrote {options.out / FRONTIER}")
