"""OneshotNAS (section 4.2): 10,000 masks at random, ranked on validation; the frontier of the best.

    instanas oneshot --out runs/one_shot --meta-graph runs/meta_graph/meta_graph.safetensors
    instanas evaluate --out runs/evaluation --one-shot runs/one_shot
    instanas finetune --run runs/search --one-shot runs/one_shot --from-scratch --out runs/fixed_alone

The last trains the best of them that is no slower than the controller of a search, alone.
All masks are ranked on some validation images, the best of them again on all (successive halving), which
saves most of the time: a mask that is among the best but was unlucky on the first images is lost,
and all accuracies in the file are of all images. Mutations of the best, which the paper has not, make it
stronger (``--mutations``). Resumes where it was. Writes ``one_shot.json``, the frontier, and ``menu.json``,
masks to choose between for ``instanas search regression --menu``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rich.progress import track
from torch import Tensor

from agents.one_shot import Candidate, OneShotSearch, best_layers
from instanas_env import paper
from instanas_env.storage import save_json
from instanas_env.training.run_directory import FREE, RunDirectory, machine
from instanas_env.wrappers.menu import save_menu
from scripts.begin import begin, frozen_bandits
from scripts.comparison.fixed import FRONTIER
from scripts.options import Compute, Data, Folder, Weights

MENU = "menu.json"


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """How many to rank, and how closely; an experiment has these in its preset."""

    masks: int = paper.ONE_SHOT_MASKS
    """Sampled, at every density; the cheapest path is ranked as well: the frontier reaches down to it."""
    images: int = 500
    """Validation images that all of them are ranked on."""
    finalists: int = 200
    """The best, which are ranked on all validation images."""
    mutations: int = 0
    """So many mutations of the frontier are ranked as well, after the samples."""
    slowest: float | None = None
    """Masks that take more than so many times MobileNetV2's path are passed over."""
    menu: int = 53
    """Masks of menu.json, of the finalists: half of them the frontier, the rest good at a class."""
    chunk: int = 100
    """Masks between two checkpoints; mutations come from the frontier of all chunks before."""


@dataclass(frozen=True, kw_only=True)
class Options(Numbers, Compute, Weights, Data, Folder):
    """What to rank, on which images."""

    seed: int = 0


def search(options: Options, run: RunDirectory) -> OneShotSearch:
    """Rank what is not ranked yet; gives the search that knows the finalists."""
    (bandit,) = frozen_bandits(options, ("val",), run.world.device)
    val, table = bandit.image_set, bandit.latency_table
    run.read(meta_graph=options.weights_file, latency_table=options.table_file)
    run.bind(val=val)
    slowest = None if options.slowest is None else (0.0, options.slowest * table.reference("mobilenet_v2"))
    first = OneShotSearch(bandit, options.seed, options.images, slowest)
    run.claim()
    rank(first, torch.cat([first.known(), first.sample(options.masks)]), "sampled", options.chunk, run)
    for start in range(0, options.mutations, options.chunk):  # each chunk from the frontier so far
        count = min(options.chunk, options.mutations - start)
        rank(first, first.sample(count, mutate=True), f"mutations from {start}", options.chunk, run)
    ranked = first.candidates
    accuracy, latency_ms = [each.accuracy for each in ranked], [each.latency_ms for each in ranked]
    best = [ranked[i].mask for i in best_layers(accuracy, latency_ms, options.finalists)]
    last = OneShotSearch(bandit, images=len(val))
    rank(last, torch.stack(best), "finalists", options.chunk, run)
    return last


def rank(one_shot: OneShotSearch, masks: Tensor, name: str, chunk: int, run: RunDirectory) -> None:
    """Rank masks, a checkpoint after each chunk; what earlier calls found comes from the history."""
    rows = [row for row in run.history if row["round"] == name]
    known = [pair for row in rows for pair in zip(row["accuracy"], row["by_class"], strict=True)]
    latency_ms = one_shot.bandit.latency_table.lookup(masks[: len(known)]).tolist()
    for mask, ms, (accuracy, by_class) in zip(masks[: len(known)], latency_ms, known, strict=True):
        one_shot.add(Candidate(mask, accuracy, ms, torch.tensor(by_class, dtype=torch.float64)))
    parts = masks[len(known) :].split(chunk) if len(known) < len(masks) else ()
    for part in track(parts, f"one-shot search, {name}", total=len(parts)):
        found = list(one_shot.rank_masks(part))
        by_class = [candidate.class_accuracy.tolist() for candidate in found]
        accuracies = [candidate.accuracy for candidate in found]
        run.checkpoint({"round": name, "accuracy": accuracies, "by_class": by_class}, {})


def main(options: Options) -> None:
    """Search to the end, or from where an earlier call was stopped."""
    world = begin(options)
    run = RunDirectory(options.out, options, free=FREE, world=world)
    run.restore()
    found = search(options, run)
    menu, best = found.menu(options.menu), sorted(found.frontier, key=lambda each: -each.accuracy)
    save_menu(options.out / MENU, found.space, menu)
    made = {"options": run.config, "machine": machine(world), "search_space": found.space.config}
    frontier = [
        {
            "mask": "".join(str(int(bit)) for bit in each.mask.flatten().tolist()),
            "accuracy": each.accuracy,
            "latency_ms": each.latency_ms,
        }
        for each in best
    ]
    save_json(options.out / FRONTIER, {**made, "frontier": frontier})
    for each in best:
        print(f"{each.latency_ms:7.3f} ms  {100 * each.accuracy:.1f} %")
    print(f"wrote {options.out / FRONTIER} and {options.out / MENU}, {len(menu)} masks")
