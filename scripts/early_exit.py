"""Let the controller of a run answer the images that it is sure of, so that no network runs for them.

    instanas early-exit --run runs/search --out runs/exit
    instanas early-exit --run runs/search --out runs/exit --network runs/mobilenet_v2

How sure it must be is chosen on the validation images: so that it answers as often as possible without
losing more than ``--lose`` of the accuracy of the same networks for all images. By default the other
images get the networks that the controller chooses; with ``--network`` that one, whose weights are then
taken. The run that is written can be evaluated, exported and loaded by ``InstaNASClassifier`` as any other.
The controller must have learnt to name the images, as those of ``reinforce`` and ``regression`` do. (Ours;
the paper's controller only chooses.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.agent import NETWORK
from agents.early_exit import NEVER, EarlyExit
from agents.evaluation.picks import Pick, controller_file
from agents.evaluation.scores import (
    BATCH_SIZE,
    Scores,
    choose_masks,
    score_masks,
    some_images,
    with_answers,
)
from agents.files import load_agent
from agents.reward_regression import RewardRegression
from agents.saved import TYPICAL, save_data, table_of
from agents.static import StaticAgent
from instanas_env import checks
from instanas_env.bandit import InstanceBandit
from instanas_env.data import load_images
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import load_config
from instanas_env.training.bound import IMAGE_SETS, check_same_images, described
from instanas_env.training.matching import CONTROLLER, META_GRAPH
from instanas_env.training.run_directory import FREE, RunDirectory
from scripts.begin import begin
from scripts.comparison.text_table import Columns, TextTable, milliseconds
from scripts.options import Compute, DataOfRun, filled

LOSE = 0.002
"""Less than some thousand images can tell from nothing."""
STEPS = 20
"""Confidences looked at: those that let so many equal parts of the validation images leave."""


@dataclass(frozen=True, kw_only=True)
class Options(Compute, DataOfRun):
    """Whose controller answers, and who answers the rest."""

    run: Path = field(kw_only=False)
    """Directory with controller.safetensors and meta_graph.safetensors, such as that of a search."""
    out: Path = field(kw_only=False)
    """Directory of the run that is written."""
    network: Path | None = None
    """A network for all images that are left, its directory or weights: one trained alone (`instanas
    pretrain --modules 2`), or under one mask (`instanas finetune --one-shot`). By default the networks of the
    run, as its controller chooses them."""
    prefer: Pick | None = None
    """Which of the trade-offs that `instanas choose` picked."""
    dial: float | None = None
    """Where the dial of a regression controller is set first: mean latency of its networks on validation, in
    multiples of MobileNetV2's."""
    confidence: float | None = None
    """From which probability on the controller answers; by default it is chosen."""
    lose: float = LOSE
    """Accuracy, in 0..1, that it may cost on validation where it is chosen."""


def one_network(file: Path, space: SearchSpace) -> tuple[MetaGraph, Tensor]:
    """A network for all images: a meta-graph of ``space``, and the mask ``(num_cells, num_modules)`` of it.

    Args:
        file: of its weights. Beside it may lie the mask, as a controller.
        space: of the controller that answers first.

    Raises:
        FileNotFoundError: no weights are there.
        ValueError: its controller chooses, or its cells are not those of ``space``.
    """
    graph, beside = MetaGraph.load(file), file.with_name(CONTROLLER)
    mask = graph.space.full_mask()
    if beside.is_file():
        agent = load_agent(beside)
        if not isinstance(agent, StaticAgent):
            raise ValueError(
                f"network: {beside} is a {type(agent).__name__}, which chooses; one mask will do"
            )
        graph.space.expect(network=agent.space)
        mask = agent.mask
    elif graph.space.num_modules > 1:
        raise ValueError(
            f"network: {file} has {graph.space.num_modules} modules a cell, and no mask beside it; one"
            " trained alone will do, or under one mask (`instanas finetune --one-shot`)"
        )
    if graph.space == space:
        return graph, mask
    whole = MetaGraph(space, graph.num_classes, generator_for(0))  # of MobileNetV2 alone, say, one module
    with checks.explained(f"network: {file} does not fit the controller of run"):
        whole.start_from(graph)
    wide = torch.zeros(space.mask_shape, dtype=torch.bool)
    wide[:, [space.modules.index(module) for module in graph.space.modules]] = mask
    return whole.eval(), wide


def points(agent: EarlyExit, bandit: InstanceBandit, *confidences: float) -> Iterator[dict[str, Any]]:
    """What the policy is worth on the bandit's images at some confidences.

    By default from answering none of the images to nearly all, in :data:`STEPS` steps.
    """
    images = bandit.image_set
    networks = score_masks(bandit, choose_masks(agent, images))
    parts = torch.arange(len(images)).split(BATCH_SIZE)
    logits = torch.cat([agent.name_logits(images.images[part]) for part in parts])
    sure, names = logits.softmax(1).max(1)
    places = (torch.arange(1, STEPS) * len(sure) // STEPS - 1).clamp(min=0)
    falling = sure.sort(descending=True).values[places]
    for confidence in confidences or (NEVER, *falling.tolist()):
        answers = torch.where(sure >= confidence, names, NETWORK)
        outcome = with_answers(bandit, networks, answers)
        answered = (answers != NETWORK).double().mean().item()
        scores = Scores.of(outcome, bandit.latency_table.controller, answered=answered)
        yield {"confidence": confidence, **scores.known()}


def chosen(found: list[dict[str, Any]], lose: float) -> dict[str, Any]:
    """The point that answers most of those that are at most ``lose`` less accurate than the first, none."""
    least = found[0]["accuracy"] - lose
    return [point for point in found if point["accuracy"] >= least][-1]


def table(found: list[dict[str, Any]], taken: dict[str, Any]) -> TextTable:
    """A line for each point."""
    columns: Columns = {
        "Answers itself, %": lambda row: f"{100 * row['answered']:.0f}" + (" <" if row is taken else ""),
        "where sure by": lambda row: "" if row["confidence"] == NEVER else f"{row['confidence']:.4f}",
        "Accuracy, %": lambda row: f"{100 * row['accuracy']:.1f}",
        "ms": lambda row: milliseconds(row["latency_ms"]),
        "Networks": lambda row: f"{row['networks']:,}",
    }
    return TextTable.of(columns, found)


def main(options: Options) -> None:
    """Look, choose, write."""
    world = begin(options)
    options = filled(options, [options.run])
    assert options.dataset is not None
    inner: Any = load_agent(controller_file(options.run, options.prefer))
    space, mask = inner.space, None
    source = options.run if options.network is None else options.network
    source = source / META_GRAPH if source.is_dir() else source
    read = controller_file(options.run, options.prefer)
    if options.out.resolve() in {file.resolve() for file in (options.run, read.parent, source.parent)}:
        raise ValueError(f"out: got {options.out}, whose files are read; another directory will do")
    run = RunDirectory(options.out, options, free=FREE)
    run.read(
        run=options.run / META_GRAPH, controller=read, network=None if options.network is None else source
    )
    if options.network is None:
        graph = MetaGraph.load(source)
        space.expect(run=graph.space)
    else:
        graph, mask = one_network(source, space)
    if (latencies := table_of(options.run, space)) is None:
        raise ValueError(f"run: {options.run} has no latency table; `instanas profile` makes it")
    val = load_images(options.dataset, "val", options.data_dir, space.resolution)
    run.bind(val=val)
    runs = {options.run, options.run if source == options.network else source.parent}
    check_same_images(runs, options.dataset, "val", val)
    agent = EarlyExit(inner, NEVER, mask)
    for name, classes in (("run", agent.num_classes), ("network", graph.num_classes)):
        if classes != len(val.classes):
            raise ValueError(f"{name}: tells {classes} classes apart; the images have {len(val.classes)}")
    bandit = InstanceBandit(graph.to(world.device), val, latencies)
    if options.dial is not None:
        if not isinstance(inner, RewardRegression) or mask is not None:
            raise ValueError(f"dial: got {options.dial}, but nobody here has one; leave it out")
        inner.dial(some_images(val), options.dial * latencies.reference("mobilenet_v2"))
    found = list(points(agent, bandit))
    if options.confidence is None:
        taken = chosen(found, options.lose)
    else:
        (taken,) = points(agent, bandit, options.confidence)
        found.append(taken)
    run.claim()
    write(options, agent, taken, bandit, source)
    table(found, taken).show()
    print(f"wrote {options.out}; `instanas evaluate`, `export` and InstaNASClassifier.load take it")


def write(
    options: Options, agent: EarlyExit, taken: dict[str, Any], bandit: InstanceBandit, source: Path
) -> None:
    """Write the run: what is known of images and times, the weights, and last the controller."""
    agent.confidence = taken["confidence"]
    val, space = bandit.image_set, bandit.space
    typical = space.repair(agent.masks(some_images(val, TYPICAL)))
    save_data(options.out, val, bandit.latency_table, typical)
    record = load_config(source).get("record") or {}
    made = record.get("options") or {}  # of a network trained alone perhaps on other images
    on = {"dataset": options.dataset, IMAGE_SETS: {**(made.get(IMAGE_SETS) or {}), "val": described(val)}}
    bandit.meta_graph.save(options.out / META_GRAPH, {**record, "options": {**made, **on}})
    told = {name: None if value is None else str(value) for name, value in asdict(options).items()}
    agent.save(options.out / CONTROLLER, {"options": told, "validation": taken})
