"""Pre-train a meta-graph with drop-path (section 3.2); also trains plain networks such as MobileNetV2.

    instanas pretrain --out runs/mobilenet_v2 --modules 2
    instanas pretrain --out runs/meta_graph --teacher runs/mobilenet_v2/meta_graph.safetensors

Resumes where it was when called again with the same options. Writes ``meta_graph.safetensors`` and
``history.jsonl``: validation accuracy with all modules, random halves and fifths, and the MobileNetV2
path, so that a meta-graph whose sub-networks are at chance level is seen at once. Several processes share
every batch under torchrun, see instanas_env.training.distributed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from instanas_env.build import parse_search_space
from instanas_env.data import ImageSet
from instanas_env.networks.counting import count_macs
from instanas_env.networks.drop_path import Schedule, drop_path_masks
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import MOBILENET_V2_BLOCK
from instanas_env.seeding import generator_for
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.epoch import accuracy
from instanas_env.training.fitting import Recipe, fit
from instanas_env.training.run_directory import FREE, RunDirectory
from instanas_env.training.teacher import load_teacher
from scripts.begin import begin, images_to_train
from scripts.options import Compute, Data, Folder, Space, Training


@dataclass(frozen=True, kw_only=True)
class Numbers(Training):
    """How to train; an experiment has these in its preset."""

    schedule: Schedule = "sandwich"
    """Drop-path: "paper" (0 to the middle, then linear to 0.5), "spread" (one rate an image) or "sandwich"
    (all modules, one a cell and random masks in every batch; wants a teacher)."""
    teacher: Path | None = None
    """Weights of MobileNetV2 trained alone (--modules 2): where stem, head and its modules start from, and
    what all networks imitate besides the labels."""
    start: Path | None = None
    """Weights of a meta-graph to go on from, instead of new ones."""
    masks: Literal["per-image", "per-batch"] = "per-image"
    """One child network for each image, or one for each batch as the paper has it (then sparse ones stay near
    chance: after 10 epochs on the embedded images random fifths stand at 18 % against 43 %)."""


@dataclass(frozen=True, kw_only=True)
class Options(Numbers, Compute, Space, Data, Folder):
    """What to train, on what, and how."""

    seed: int = 0


def evaluate_densities(
    meta_graph: MetaGraph, val: ImageSet, seed: int, world: World = ALONE
) -> dict[str, float]:
    """Validation accuracy with all modules and, where there is something to drop, of sub-networks."""
    space = meta_graph.space
    scores = {"all": accuracy(meta_graph, val, space.full_mask(), world)}
    if space.num_modules > 1:
        for name, keep in (("half", 0.5), ("fifth", 0.2)):
            masks = space.random_masks(len(val), keep, generator_for(seed, 1))
            scores[name] = accuracy(meta_graph, val, masks, world)
    if space.num_modules > 1 and MOBILENET_V2_BLOCK in space.modules:
        scores["mobilenet_v2_path"] = accuracy(meta_graph, val, space.mobilenet_v2_mask(), world)
    if space.num_modules > 1:
        smallest = count_macs(space, meta_graph.num_classes).cheapest_mask()
        scores["smallest"] = accuracy(meta_graph, val, smallest, world)
    return scores


def main(options: Options, world: World = ALONE) -> None:
    """Train to the end, or from where an earlier call was stopped."""
    world = begin(options, world)
    run = RunDirectory(options.out, options, free=FREE, world=world)
    run.read(teacher=options.teacher, start=options.start)
    space = parse_search_space(options.search_space).only(*options.modules)
    train, val = images_to_train(options, space.resolution, run)
    meta_graph = MetaGraph(space, len(train.classes), generator_for(options.seed))
    if options.start is not None:
        begun = MetaGraph.load(options.start)
        if (begun.space, begun.num_classes) != (space, meta_graph.num_classes):
            raise ValueError(
                f"start: {options.start} is of {begun.space.config} with {begun.num_classes} classes;"
                f" {space.config} with {meta_graph.num_classes} will do"
            )
        meta_graph.load_state_dict(begun.state_dict())
    elif options.teacher is not None:
        meta_graph.start_from(MetaGraph.load(options.teacher))

    def masks_for(images: Tensor, count: int, progress: float, generator: torch.Generator) -> Tensor:
        """The masks of a whole batch, ``(count, num_cells, num_modules)``, by drop-path."""
        if space.num_modules == 1:
            return space.full_mask().expand(count, -1, -1)
        per_image = options.masks == "per-image"
        if options.start is not None:
            progress = 1.0  # its rates have risen before
        return drop_path_masks(space, count, progress, generator, options.schedule, per_image)

    fit(
        meta_graph,
        train,
        masks_for,
        lambda: evaluate_densities(meta_graph, val, options.seed, world),
        meta_graph.save,
        run,
        Recipe.of(options),
        load_teacher(options.teacher, meta_graph.num_classes, world.device),
    )
