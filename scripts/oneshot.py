"""OneshotNAS (section 4.2): 10,000 masks, ranked on validation; the frontier of the best.

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
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from agents.one_shot import Candidate, OneShotSearch, best_layers
from instanas_env import checks, paper
from instanas_env.search_space import as_text
from instanas_env.storage import save_json
from instanas_env.training.run_directory import FREE, RunDirectory, machine
from instanas_env.wrappers.menu import save_menu
from scripts.begin import begin, frozen_bandits
from scripts.comparison.fixed import FRONTIER
from scripts.options import Compute, Data, Folder, Weights

MENU = "menu.json"
FINALISTS = "finalists"


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """How many to rank, and how closely; an experiment has these in its preset."""

    masks: int = paper.ONE_SHOT_MASKS
    """Sampled: masks of every density, paths, and MobileNetV2's path less some blocks. MobileNetV2's path and
    the cheapest one are ranked as well: the frontier reaches down to the latter."""
    images: int = 500
    """Validation images that all of them are ranked on."""
    finalists: int = 200
    """The best, which are ranked on all validation images."""
    mutations: int = 0
    """So many mutations of the frontier are ranked as well, after the samples."""
    slowest: float | None = None
    """Masks that take more than so many times MobileNetV2's path are passed over."""
    menu: int = 53
    """Masks of menu.json, of the finalists: half of them of the frontier, the rest good at a class. This verb
    called again with another number ranks nothing again."""
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
    reach = None
    if options.slowest is not None:
        with checks.explained("slowest: is in multiples of MobileNetV2's path"):
            unit = table.reference("mobilenet_v2")
        if options.slowest * unit < (cheapest := table.reference("cheapest")):
            raise ValueError(f"slowest: got {options.slowest}; more than {cheapest / unit:.3g} will do")
        reach = 0.0, options.slowest * unit
    first = OneShotSearch(bandit, options.seed, options.images, reach)
    with checks.explained(f"slowest: {options.slowest} leaves too few masks"):
        sampled = torch.cat([first.known(), first.sample(options.masks)])
    run.claim()
    rank(first, sampled, "sampled", options.chunk, run)
    for start in range(0, options.mutations, options.chunk):  # each chunk from the frontier so far
        count = min(options.chunk, options.mutations - start)
        rank(first, first.sample(count, mutate=True), f"mutations from {start}", options.chunk, run)
    # A mutation may be its parent, or another's: each mask once.
    ranked = list({tuple(each.mask.flatten().tolist()): each for each in first.candidates}.values())
    accuracy, latency_ms = [each.accuracy for each in ranked], [each.latency_ms for each in ranked]
    best = [ranked[i].mask for i in best_layers(accuracy, latency_ms, options.finalists)]
    last = OneShotSearch(bandit, images=len(val))
    rank(last, torch.stack(best), FINALISTS, options.chunk, run)
    return last


def rank(one_shot: OneShotSearch, masks: Tensor, name: str, chunk: int, run: RunDirectory) -> None:
    """Rank masks, a checkpoint after each chunk; what earlier calls found comes from the history."""
    rows = [row for row in run.history if row["round"] == name]
    known = [accuracy for row in rows for accuracy in row["accuracy"]]
    # Only the menu asks for classes; of 10,000 masks they would be megabytes.
    by_class = [found for row in rows for found in row.get("by_class", [[]] * len(row["accuracy"]))]
    before, left = masks[: len(known)], masks[len(known) :]
    latency_ms = one_shot.bandit.latency_table.lookup(before).tolist()
    for mask, ms, accuracy, found in zip(before, latency_ms, known, by_class, strict=True):
        one_shot.add(Candidate(mask, accuracy, ms, torch.tensor(found, dtype=torch.float64)))
    parts = left.split(chunk) if len(left) else ()
    for part in track(parts, f"one-shot search, {name}", total=len(parts)):
        new = list(one_shot.rank_masks(part))
        row: dict[str, Any] = {"round": name, "accuracy": [candidate.accuracy for candidate in new]}
        if name == FINALISTS:
            row["by_class"] = [candidate.class_accuracy.tolist() for candidate in new]
        run.checkpoint(row, {})


def main(options: Options) -> None:
    """Search to the end, or from where an earlier call was stopped."""
    world = begin(options)
    run = RunDirectory(options.out, options, free=(*FREE, "menu"), world=world)
    run.restore()
    found = search(options, run)
    menu, best = found.menu(options.menu), sorted(found.frontier, key=lambda each: -each.accuracy)
    save_menu(options.out / MENU, found.space, menu)
    made = {"options": run.config, "machine": machine(world), "search_space": found.space.config}
    masks = as_text(torch.stack([each.mask for each in best]))
    frontier = [
        {"mask": mask, "accuracy": each.accuracy, "latency_ms": each.latency_ms}
        for mask, each in zip(masks, best, strict=True)
    ]
    save_json(options.out / FRONTIER, {**made, "frontier": frontier})
    for each in best:
        print(f"{each.latency_ms:7.3f} ms  {100 * each.accuracy:.1f} %")
    print(f"wrote {options.out / FRONTIER} and {options.out / MENU}, {len(menu)} masks")
