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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from agents.agent import Agent
from agents.arms import MenuArms
from agents.evaluation.controls import Controls
from agents.evaluation.picks import is_pick
from agents.files import load_agent
from agents.one_shot import OneShotSearch
from agents.reward_regression import RewardRegression
from agents.static import RandomAgent, StaticAgent
from instanas_env.bandit import InstanceBandit
from instanas_env.build import shipped
from instanas_env.data import load_images
from instanas_env.deploy.timing import Backend
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.seeding import generator_for
from instanas_env.storage import save_json
from instanas_env.training.bound import IMAGE_SETS, check_same_images, described
from instanas_env.training.distributed import ALONE
from instanas_env.training.matching import CONTROLLER, META_GRAPH, check_classes, check_spaces
from instanas_env.training.run_directory import machine
from scripts.begin import begin
from scripts.comparison.alone import LoneNetwork, is_of, latencies, load_all, load_lone
from scripts.comparison.image_record import make_record
from scripts.comparison.over_seeds import gains_told, over_seeds
from scripts.comparison.policy_table import policy_table
from scripts.comparison.rows import Comparison
from scripts.comparison.settings import add_settings
from scripts.known import filled
from scripts.oneshot import load_frontier

SHIPPED_SEARCHES = ("reference",)


@dataclass(frozen=True)
class Options:
    """What to compare, on which images."""

    out: Path
    """Directory for results.json and images.safetensors."""
    runs: tuple[Path, ...] = ()
    """Directories with controller.safetensors and meta_graph.safetensors."""
    meta_graph: Path | None = None
    """Pre-trained weights that fixed masks run on; by default those that the first run began with. Their file
    tells the search space, which is that of all runs."""
    latency_table: Path | None = None
    """Of that search space; by default that of the first run, or the shipped one."""
    alone: tuple[Path, ...] = ()
    """Networks trained alone (`instanas pretrain --modules 2`, `instanas baseline`): run
    directories or weights."""
    dataset: str | None = None
    """By default that of the first run, or the embedded one."""
    data_dir: Path | None = None
    """By default where the first run had it."""
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
    seed: int = 0
    device: str = "auto"
    """Where the networks compute: cpu, cuda, cuda:1; auto is CUDA where there is one, else the CPU."""
    threads: int = 1


def compare(options: Options, device: torch.device = ALONE.device) -> Comparison:
    """Score all policies."""
    assert options.dataset is not None, "filled"
    weights = options.meta_graph or shipped(META_GRAPH)
    found = searches(options)
    space, table = check_spaces(weights, options.latency_table or shipped("latency.json"), found.values())
    val, test = (
        load_images(options.dataset, split, options.data_dir, space.resolution) for split in ("val", "test")
    )
    check_classes(weights, found.values(), len(test.classes))
    check_same_images(found.values(), options.dataset, "val", val)
    alone = load_all(options.alone, space, len(test.classes))
    given = None if options.one_shot is None else load_frontier(options.one_shot, space)
    comparison = Comparison(test, options.seed, options.backend if options.time_real else None)
    shared = MetaGraph.load(weights).to(device)
    bandit = InstanceBandit(shared, test, table)
    add_networks(comparison, bandit, alone, options)
    one_shot = one_shot_search(InstanceBandit(shared, val, table), given, options)
    frontier = torch.stack([candidate.mask for candidate in one_shot.frontier])
    add_static(comparison, bandit, one_shot, options.one_shot_limits)
    for name, folder in found.items():
        graph, agent = MetaGraph.load(folder / META_GRAPH).to(device), load_agent(folder / CONTROLLER)
        dial = () if is_pick(folder / CONTROLLER) else options.dial
        bandits = InstanceBandit(graph, val, table), InstanceBandit(graph, test, table)
        on_val = add_settings(comparison, name, agent, *bandits, dial)
        if isinstance(agent, RewardRegression) and agent.num_classes == len(test.classes):
            comparison.add_controller_alone(name, bandits[1], agent)
        if not on_val:
            continue
        controls = Controls(
            *bandits,
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


def one_shot_search(val: InstanceBandit, given: Tensor | None, options: Options) -> OneShotSearch:
    """A search of its own, or the masks ``given`` ranked on all validation images."""
    if given is not None:
        search = OneShotSearch(val, options.seed, len(val.image_set))
        proposals, total = search.rank_masks(given), len(given)
    else:
        search = OneShotSearch(val, options.seed)
        proposals, total = search.rank(options.one_shot_masks), options.one_shot_masks
    for _ in track(proposals, "one-shot search", total=total):
        pass
    return search


def add_static(
    comparison: Comparison, bandit: InstanceBandit, search: OneShotSearch, limits: Sequence[float]
) -> None:
    """The rows of the best fixed masks within some multiples of MobileNetV2's latency."""
    for factor in limits:
        limit = factor * bandit.latency_table.reference("mobilenet_v2")
        best = search.best(limit)
        if best.latency_ms <= limit:
            name = f"best static <= {factor:g} MobileNetV2"
            comparison.add("static", name, bandit, StaticAgent(bandit.space, best.mask))


def menu_of(agent: Agent) -> Tensor:
    """The masks that an agent chooses from, ``(K, num_cells, num_modules)``; none without a menu."""
    if isinstance(agent, RewardRegression) and isinstance(agent.arms, MenuArms):
        return agent.arms.menu
    return agent.space.full_mask()[None][:0]


def uses_shipped(options: Options) -> bool:
    """Whether the shared meta-graph is the package's, with which go a MobileNetV2 and two searches."""
    path = options.meta_graph
    return path is None or path.resolve() == shipped(META_GRAPH).resolve()


def add_networks(
    comparison: Comparison, bandit: InstanceBandit, alone: Sequence[LoneNetwork], options: Options
) -> None:
    """The rows of fixed policies on the shared meta-graph, and of networks trained alone.

    MobileNetV2 of the space itself comes first: it is what latencies are compared with.
    """
    space, table = bandit.space, bandit.latency_table
    found = list(zip(alone, latencies(alone, bandit, generator_for(options.seed, 9)), strict=True))

    def add_alone(own: bool) -> None:
        for lone, latency in found:
            if is_of(lone, space) is own:
                comparison.add_network(lone.family, lone.name, bandit, lone, latency)

    add_alone(own=True)
    if uses_shipped(options):
        lone = load_lone(shipped("mobilenet_v2.safetensors"))
        (latency,) = latencies([lone], bandit, generator_for(options.seed, 9))
        comparison.add_network("fixed", "MobileNetV2 trained alone", bandit, lone, latency)
    fixed: dict[str, Agent] = {
        "full meta-graph": StaticAgent(space, space.full_mask()),
        "MobileNetV2 path": StaticAgent(space, space.mobilenet_v2_mask()),
        "cheapest path": StaticAgent(space, table.cheapest_mask()),
        "random half": RandomAgent(space, 0.5, options.seed),
    }
    for name, agent in fixed.items():
        comparison.add("fixed", name, bandit, agent)
    add_alone(own=False)


def searches(options: Options) -> dict[str, Path]:
    """The directories of finished searches: those that come with the package, and those of the options."""
    assets = shipped(META_GRAPH).parent
    with_package = {
        f"{name} (shipped)": assets / name
        for name in SHIPPED_SEARCHES
        if uses_shipped(options) and (assets / name / CONTROLLER).is_file()
    }
    names = [folder.name for folder in options.runs]
    unique = {
        name if names.count(name) == 1 else str(folder): folder
        for name, folder in zip(names, options.runs, strict=True)
    }
    return {**with_package, **unique}


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
    sets = {"test": described(comparison.image_set)}
    results = {
        "options": config,
        IMAGE_SETS: sets,
        "machine": machine(world),
        "policies": comparison.rows,
        "seeds": seeds,
    }
    save_json(options.out / "results.json", results)
    policy_table(comparison.rows).show()
    print("\n".join(gains_told(seeds)))
    print(f"wrote {options.out}/results.json, images.safetensors; `instanas report {options.out}` draws them")
