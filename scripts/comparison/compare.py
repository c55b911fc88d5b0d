"""Everything that `instanas evaluate` compares: fixed masks, networks trained alone, and controllers.

At the paper's scale that takes hours. What has finished is kept, in parts, until the results are written.
"""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.agent import Agent
from agents.arms import MenuArms
from agents.early_exit import EarlyExit
from agents.evaluation.alone import is_of, load_all, load_lone, short_names
from agents.evaluation.controls import Controls
from agents.evaluation.picks import is_pick
from agents.files import load_agent
from agents.reward_regression import RewardRegression
from instanas_env.bandit import InstanceBandit
from instanas_env.build import shipped
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.storage import file_fingerprint, load_config
from instanas_env.training.bound import check_same_images, described
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.matching import CONTROLLER, META_GRAPH
from instanas_env.training.run_directory import machine
from scripts.begin import frozen_bandits
from scripts.comparison.fixed import add_networks, add_static, frontier_file, one_shot_search
from scripts.comparison.kept import Kept, Made
from scripts.comparison.rows import Comparison

PARTS = "evaluated_parts"
"""The folder of what has finished, in that of the comparison."""
SEARCHED = ("dial", "control_masks", "control_networks", "control_images")
"""Options that the rows of searches depend on, and no others."""


def compare(options: Any, world: World = ALONE) -> Comparison:
    """Score all policies.

    Args:
        options: those of :mod:`scripts.evaluate`, filled.
        world: on whose device the networks compute.
    """
    found, device = searches(options), world.device
    val, test = frozen_bandits(options, ("val", "test"), device, found.values())
    check_same_images(found.values(), options.dataset, "val", val.image_set)
    alone = load_all(options.alone, val.space, len(test.image_set.classes))
    if uses_shipped(options):
        lone = load_lone(shipped("mobilenet_v2.safetensors"))
        alone.append(replace(lone, name="MobileNetV2 trained alone", family="fixed"))
    teller = next((lone for lone in alone if is_of(lone, val.space)), None)  # of how hard images are
    losses = None if teller is None else teller.losses(test.image_set, device)
    backend = options.backend if options.time_real else None
    kept = kept_parts(options, (val, test), world)
    comparison = Comparison(test.image_set, options.seed, backend, losses, kept)
    frontier = frontier_of(options, val, kept)

    def add_fixed() -> None:
        add_networks(comparison, test, alone)
        add_static(comparison, test, **frontier, limits=options.one_shot_limits)

    lone_files = {lone.name: file_fingerprint(lone.file) for lone in alone if lone.file}
    comparison.part("fixed", {"alone": lone_files, "limits": options.one_shot_limits}, add_fixed)
    common = {name: getattr(options, name) for name in SEARCHED}
    common["hard"] = None if teller is None else lone_files[teller.name]
    for name, folder in found.items():
        graph, agent = MetaGraph.load(folder / META_GRAPH).to(device), load_agent(folder / CONTROLLER)
        own = [InstanceBandit(graph, split.image_set, val.latency_table) for split in (val, test)]
        controls = partial(
            Controls,
            others=torch.cat([frontier["masks"], menu_of(agent)]),
            num_masks=options.control_masks,
            num_networks=options.control_networks,
            num_images=options.control_images,
            seed=options.seed,
        )
        dial = () if is_pick(folder / CONTROLLER) else options.dial
        # Before one network trained alone, the meta-graph's other modules are nobody's.
        one = isinstance(agent, EarlyExit) and agent.fixed is not None
        made = None if one or trained_anew(folder) else controls
        files = {file: file_fingerprint(folder / file) for file in (CONTROLLER, META_GRAPH)}
        add = partial(comparison.add_search, name, agent, own[0], own[1], dial, made)
        comparison.part(f"search {name}", {"files": files, **common}, add)
    return comparison


def kept_parts(options: Any, bandits: Sequence[InstanceBandit], world: World) -> Kept:
    """The folder of the parts, which all depend on the images, the shared files, and the machine's clock."""
    files = {"meta_graph": options.weights_file, "latency_table": options.table_file}
    if options.one_shot is not None:
        files["one_shot"] = frontier_file(options.one_shot)
    common = {
        "images": [
            {**described(bandit.image_set), "mean": bandit.image_set.mean, "std": bandit.image_set.std}
            for bandit in bandits
        ],
        "files": {name: file_fingerprint(file) for name, file in files.items()},
        "machine": machine(world),
        "version": version("instanas-env"),
        **{name: getattr(options, name) for name in ("one_shot_masks", "time_real", "backend", "seed")},
    }
    return Kept(options.out / PARTS, common)


def frontier_of(options: Any, val: InstanceBandit, kept: Kept) -> dict[str, Tensor]:
    """The best fixed masks of the shared meta-graph, and what they reach on validation: a part by itself.

    Returns:
        ``masks``, ``(K, num_cells, num_modules)``, and ``accuracy``, ``(K,)``.
    """

    def search() -> Made:
        found = one_shot_search(val, options.one_shot, options.one_shot_masks, options.seed).frontier
        accuracy = torch.tensor([candidate.accuracy for candidate in found], dtype=torch.float64)
        return {"masks": torch.stack([candidate.mask for candidate in found]), "accuracy": accuracy}, {}

    return kept.get("frontier", {}, search)[0]


def menu_of(agent: Agent) -> Tensor:
    """The masks that an agent chooses from, ``(K, num_cells, num_modules)``; none without a menu."""
    agent = agent.agent if isinstance(agent, EarlyExit) else agent
    if isinstance(agent, RewardRegression) and isinstance(agent.arms, MenuArms):
        return agent.arms.menu
    return agent.space.full_mask()[None][:0]


def trained_anew(folder: Path) -> bool:
    """Whether a run's meta-graph was trained from new weights under its controller.

    Its modules then know the images that the controller sent them and no others: fixed masks on them would
    be controls that nobody trained. Its rival is a fixed mask trained as long, see `instanas finetune`.
    """
    record = load_config(folder / META_GRAPH).get("record") or {}
    return bool(record.get("options", {}).get("from_scratch"))


def uses_shipped(options: Any) -> bool:
    """Whether the shared meta-graph is the package's or a copy, with which go a MobileNetV2 and a search."""
    given = options.weights_file
    return given.is_file() and filecmp.cmp(given, shipped(META_GRAPH), shallow=False)


def searches(options: Any) -> dict[str, Path]:
    """The directories of finished searches: the one that comes with the package, and those of the options."""
    with_package = {}
    if uses_shipped(options):
        with_package["reference (shipped)"] = shipped(f"reference/{CONTROLLER}").parent
    return {**with_package, **dict(zip(short_names(options.runs), options.runs, strict=True))}
