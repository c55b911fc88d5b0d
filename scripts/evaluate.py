"""Compare policies on the test split, once: a table, results.json and images.safetensors.

    instanas evaluate --out runs/evaluation --runs runs/search --dataset fashion_mnist
    instanas report runs/evaluation

Fixed policies on a meta-graph, networks trained alone, and the controllers in ``runs``, each on the
meta-graph beside it. By default the meta-graph is the shipped one, and what else the package holds
(MobileNetV2 trained alone, the long searches) is compared as well; the search space is that of its file.
What is chosen (the best static masks) is chosen on the validation split. Run it on a quiet machine if the
real latencies matter.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.agent import Agent
from agents.arms import MenuArms
from agents.evaluation.controls import Controls
from agents.evaluation.picks import is_pick
from agents.files import load_agent
from agents.reward_regression import RewardRegression
from instanas_env.bandit import InstanceBandit
from instanas_env.build import shipped
from instanas_env.deploy.timing import Backend
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.storage import save_json
from instanas_env.training.bound import IMAGE_SETS, check_same_images, described
from instanas_env.training.distributed import ALONE
from instanas_env.training.matching import CONTROLLER, META_GRAPH
from instanas_env.training.run_directory import machine
from scripts.begin import begin, frozen_bandits
from scripts.comparison.alone import load_all, load_lone, short_names
from scripts.comparison.fixed import add_networks, add_static, one_shot_search
from scripts.comparison.image_record import make_record
from scripts.comparison.rows import Comparison
from scripts.comparison.tables import gains_told, over_seeds, policy_table
from scripts.oneshot import load_frontier
from scripts.options import Compute, DataOfRun, Folder, Weights, filled


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """How closely to compare; an experiment has these in its preset."""

    alone: tuple[Path, ...] = ()
    """Networks trained alone (`instanas pretrain --modules 2`, `instanas baseline`): run
    directories or weights."""
    dial: tuple[float, ...] = (0.3, 0.4, 0.6)
    """Settings of a regression controller's dial: mean latency of its networks on the validation split,
    in multiples of MobileNetV2's. A pick of `instanas choose` stays at its own."""
    one_shot: Path | None = None
    """Directory of `instanas oneshot`, whose frontier is taken in place of a search here."""
    one_shot_masks: int = 400
    """Masks that the one-shot search ranks on validation."""
    one_shot_limits: tuple[float, ...] = (0.4, 0.6, 1.0)
    """Its best masks at these multiples of MobileNetV2's latency are compared."""
    control_masks: int = 100
    """Fixed masks sampled on the meta-graph of each search, for the best one no slower than its controller,
    beside those that the controller uses most, and those on its menu, if it has one."""
    control_networks: int = 24
    """How many of those there are; the oracle picks among them for each image."""
    control_images: int = 2000
    """Validation images that those masks are ranked on at first, and test images that the oracle is asked."""
    time_real: bool = True
    """Measure real latencies of separate children."""
    backend: Backend = "onnx"
    """What runs them: onnxruntime, or PyTorch's eager mode."""


@dataclass(frozen=True, kw_only=True)
class Options(Numbers, Compute, Weights, DataOfRun, Folder):
    """What to compare, on which images."""

    runs: tuple[Path, ...] = ()
    """Directories with controller.safetensors and meta_graph.safetensors."""
    meta_graph: Path | None = None
    """Pre-trained weights that fixed masks run on; by default those that the first run began with. Their file
    tells the search space, which is that of all runs."""
    latency_table: Path | None = None
    """Latencies in that search space; by default those of the first run, or the shipped ones."""
    seed: int = 0


def compare(options: Options, device: torch.device = ALONE.device) -> Comparison:
    """Score all policies."""
    assert options.dataset is not None, "filled"
    found = searches(options)
    val, test = frozen_bandits(options, ("val", "test"), device, found.values())
    check_same_images(found.values(), options.dataset, "val", val.image_set)
    space, table, classes = val.space, val.latency_table, test.image_set.classes
    alone = load_all(options.alone, space, len(classes))
    if uses_shipped(options):
        lone = load_lone(shipped("mobilenet_v2.safetensors"))
        alone.append(dataclasses.replace(lone, name="MobileNetV2 trained alone", family="fixed"))
    given = None if options.one_shot is None else load_frontier(options.one_shot, space)
    comparison = Comparison(test.image_set, options.seed, options.backend if options.time_real else None)
    add_networks(comparison, test, alone)
    one_shot = one_shot_search(val, given, options.one_shot_masks, options.seed)
    add_static(comparison, test, one_shot, options.one_shot_limits)
    frontier = torch.stack([candidate.mask for candidate in one_shot.frontier])
    for name, folder in found.items():
        graph, agent = MetaGraph.load(folder / META_GRAPH).to(device), load_agent(folder / CONTROLLER)
        dial = () if is_pick(folder / CONTROLLER) else options.dial
        own = InstanceBandit(graph, val.image_set, table), InstanceBandit(graph, test.image_set, table)
        on_val = comparison.add_search(name, agent, *own, dial)
        if isinstance(agent, RewardRegression) and agent.num_classes == len(classes):
            comparison.add_controller_alone(name, own[1], agent)
        if not on_val:
            continue
        controls = Controls(
            *own,
            list(on_val.values()),
            torch.cat([frontier, menu_of(agent)]),
            options.control_masks,
            options.control_networks,
            options.control_images,
            options.seed,
        )
        for label, masks in on_val.items():
            comparison.add_controls(label, controls, masks)
    return comparison


def menu_of(agent: Agent) -> Tensor:
    """The masks that an agent chooses from, ``(K, num_cells, num_modules)``; none without a menu."""
    if isinstance(agent, RewardRegression) and isinstance(agent.arms, MenuArms):
        return agent.arms.menu
    return agent.space.full_mask()[None][:0]


def uses_shipped(options: Options) -> bool:
    """Whether the shared meta-graph is the package's, with which go a MobileNetV2 and a search."""
    return options.weights_file.resolve() == shipped(META_GRAPH).resolve()


def searches(options: Options) -> dict[str, Path]:
    """The directories of finished searches: the one that comes with the package, and those of the options."""
    with_package = {}
    if uses_shipped(options):
        with_package["reference (shipped)"] = shipped(f"reference/{CONTROLLER}").parent
    return {**with_package, **dict(zip(short_names(options.runs), options.runs, strict=True))}


def as_typed(value: Any) -> str:
    """An option's value as on the command line: several with spaces between them."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def main(options: Options) -> None:
    """Compare, write, print."""
    world = begin(options)
    options = filled(options, options.runs)
    comparison = compare(options, world.device)
    config = {name: as_typed(value) for name, value in dataclasses.asdict(options).items()}
    # The record is of no use without the results, which come last and so mark a finished comparison.
    record = make_record(comparison.image_set, comparison.choices, options.seed)
    record.save(options.out / "images.safetensors")
    seeds = over_seeds(comparison.rows)
    made = {
        "options": config,
        IMAGE_SETS: {"test": described(comparison.image_set)},
        "machine": machine(world),
    }
    save_json(options.out / "results.json", {**made, "policies": comparison.rows, "seeds": seeds})
    policy_table(comparison.rows).show()
    print("\n".join(gains_told(seeds)))
    print(f"wrote {options.out}/results.json, images.safetensors; `instanas report {options.out}` draws them")
