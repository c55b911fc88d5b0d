"""Everything that `instanas evaluate` compares: fixed masks, networks trained alone, and controllers."""

from __future__ import annotations

import filecmp
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.agent import Agent
from agents.arms import MenuArms
from agents.evaluation.alone import is_of, load_all, load_lone, short_names
from agents.evaluation.controls import Controls
from agents.evaluation.picks import is_pick
from agents.files import load_agent
from agents.reward_regression import RewardRegression
from instanas_env.bandit import InstanceBandit
from instanas_env.build import shipped
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.storage import load_config
from instanas_env.training.bound import check_same_images
from instanas_env.training.distributed import ALONE
from instanas_env.training.matching import CONTROLLER, META_GRAPH
from scripts.begin import frozen_bandits
from scripts.comparison.fixed import add_networks, add_static, one_shot_search
from scripts.comparison.rows import Comparison


def compare(options: Any, device: torch.device = ALONE.device) -> Comparison:
    """Score all policies.

    Args:
        options: those of :mod:`scripts.evaluate`, filled.
        device: where the networks compute.
    """
    found = searches(options)
    val, test = frozen_bandits(options, ("val", "test"), device, found.values())
    check_same_images(found.values(), options.dataset, "val", val.image_set)
    alone = load_all(options.alone, val.space, len(test.image_set.classes))
    if uses_shipped(options):
        lone = load_lone(shipped("mobilenet_v2.safetensors"))
        alone.append(replace(lone, name="MobileNetV2 trained alone", family="fixed"))
    one_shot = one_shot_search(val, options.one_shot, options.one_shot_masks, options.seed)
    losses = next((lone.losses(test.image_set, device) for lone in alone if is_of(lone, val.space)), None)
    backend = options.backend if options.time_real else None
    comparison = Comparison(test.image_set, options.seed, backend, losses)
    add_networks(comparison, test, alone)
    add_static(comparison, test, one_shot, options.one_shot_limits)
    frontier = torch.stack([candidate.mask for candidate in one_shot.frontier])
    for name, folder in found.items():
        graph, agent = MetaGraph.load(folder / META_GRAPH).to(device), load_agent(folder / CONTROLLER)
        bandits = [InstanceBandit(graph, split.image_set, val.latency_table) for split in (val, test)]
        controls = partial(
            Controls,
            others=torch.cat([frontier, menu_of(agent)]),
            num_masks=options.control_masks,
            num_networks=options.control_networks,
            num_images=options.control_images,
            seed=options.seed,
        )
        dial = () if is_pick(folder / CONTROLLER) else options.dial
        made = None if trained_anew(folder) else controls
        comparison.add_search(name, agent, bandits[0], bandits[1], dial, made)
    return comparison


def menu_of(agent: Agent) -> Tensor:
    """The masks that an agent chooses from, ``(K, num_cells, num_modules)``; none without a menu."""
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
