"""Compare policies on the test split, once: a table, results.json, images.safetensors, and figures.

    python -m scripts.evaluate --out runs/evaluation --runs runs/search --dataset fashion_mnist

Fixed policies on the shipped meta-graph, MobileNetV2 trained alone, the shipped long search, and the
controllers in ``runs``, each on the meta-graph beside it. What is chosen (the best static masks) is
chosen on the validation split. Run it on a quiet machine if the real latencies matter.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from agents.agent import Agent
from agents.baselines import OneShotSearch, RandomAgent, StaticAgent
from agents.evaluation import (
    choose_masks,
    real_latency,
    score_masks,
    shuffle_between_images,
    summarise,
)
from agents.files import load_agent
from agents.reward_regression import RewardRegression
from instanas_env.bandit import InstanceBandit, Outcome
from instanas_env.build import SHIPPED_SPACE, parse_search_space, shipped
from instanas_env.data import ImageSet, load_images
from instanas_env.latency import LatencyTable
from instanas_env.meta_graph import MetaGraph
from instanas_env.profiling import Backend
from instanas_env.seeding import generator_for
from instanas_env.storage import save_json
from scripts.figures import draw_figures
from scripts.image_record import Choices, bits, choices, make_record
from scripts.run_directory import machine

SHIPPED_SEARCHES = ("searched_regression", "searched_reinforce")


@dataclass(frozen=True)
class Options:
    """What to compare, on which images."""

    out: Path
    """Directory for results.json, images.safetensors and figures."""
    runs: tuple[Path, ...] = ()
    """Directories with controller.safetensors and meta_graph.safetensors."""
    dataset: str = "embedded"
    data_dir: Path | None = None
    dial: tuple[float, ...] = (0.3, 0.4, 0.6)
    """Settings of a regression controller's dial: mean latency of its networks on the validation split,
    in multiples of MobileNetV2's."""
    one_shot_masks: int = 400
    """Masks that the one-shot search ranks on validation."""
    one_shot_limits: tuple[float, ...] = (0.4, 0.6, 1.0)
    """Its best masks at these multiples of MobileNetV2's latency are compared."""
    time_real: bool = True
    """Measure real latencies of separate children."""
    backend: Backend = "eager"
    """What runs them: PyTorch, or onnxruntime (pip install ".[onnx]")."""
    seed: int = 0
    threads: int = 1


class Comparison:
    """Collects the rows of the table; every policy touches the test split once, here.

    Attributes:
        rows: of the table, for results.json.
        choices: by a row's name, which image got which network; of controllers that were not shuffled.
    """

    def __init__(self, table: LatencyTable, val: ImageSet, test: ImageSet, options: Options):
        self.table = table
        self.val, self.test = val, test
        self.options = options
        self.rows: list[dict[str, Any]] = []
        self.choices: dict[str, Choices] = {}

    def add(self, group: str, name: str, bandit: InstanceBandit, agent: Agent) -> Tensor:
        """Score a policy and keep its row; gives its masks on the test split."""
        masks = bandit.space.repair(choose_masks(agent, bandit.image_set))
        real = None
        if self.options.time_real:
            generator = generator_for(self.options.seed, 7)
            real = real_latency(bandit, agent, masks, generator, backend=self.options.backend)
        outcome = self._keep(group, name, bandit, masks, agent.controller is not None, real)
        if agent.controller is not None:
            self.choices[name] = choices(outcome)
        return masks

    def add_shuffled(self, group: str, name: str, bandit: InstanceBandit, masks: Tensor) -> None:
        """The control: a controller's ``masks`` exchanged between the images."""
        shuffled = shuffle_between_images(masks, generator_for(self.options.seed, 8))
        self._keep(group, name, bandit, shuffled, True, None)

    def _keep(
        self, group: str, name: str, bandit: InstanceBandit, masks: Tensor, chosen: bool, real: float | None
    ) -> Outcome:
        outcome = score_masks(bandit, masks)
        result = summarise(name, outcome, self.table.controller if chosen else 0.0, real)
        self.rows.append(
            {
                "group": group,
                **dataclasses.asdict(result),
                "networks": networks(outcome) if chosen else None,
            }
        )
        return outcome


def networks(outcome: Outcome) -> list[dict[str, Any]]:
    """The distinct networks of a policy: mask as a string of bits, latency in ms, number of images."""
    masks, first, counts = np.unique(bits(outcome), axis=0, return_index=True, return_counts=True)
    return [
        {
            "mask": "".join(map(str, mask)),
            "latency_ms": round(float(latency), 4),
            "images": int(count),
        }
        for mask, latency, count in zip(masks, outcome.latency_ms[first], counts, strict=True)
    ]


def compare(options: Options) -> Comparison:
    """Score all policies."""
    space = parse_search_space(SHIPPED_SPACE)
    table = LatencyTable.load(shipped("latency.json"))
    val, test = (load_images(options.dataset, split, options.data_dir) for split in ("val", "test"))
    comparison = Comparison(table, val, test, options)

    alone = MetaGraph.load(shipped("mobilenet_v2.safetensors"))
    lone = InstanceBandit(alone, test, table.only(2))
    comparison.add(
        "fixed", "MobileNetV2 trained alone", lone, StaticAgent(alone.space, alone.space.full_mask())
    )

    shared = MetaGraph.load(shipped("meta_graph.safetensors"))
    bandit = InstanceBandit(shared, test, table)
    fixed = {
        "full meta-graph": StaticAgent(space, space.full_mask()),
        "MobileNetV2 path": StaticAgent(space, space.mobilenet_v2_mask()),
        "cheapest path": StaticAgent(space, table.cheapest_mask()),
        "random half": RandomAgent(space, 0.5, options.seed),
    }
    for name, agent in fixed.items():
        comparison.add("fixed", name, bandit, agent)
    one_shot = OneShotSearch(InstanceBandit(shared, val, table), options.seed)
    for _ in track(one_shot.rank(options.one_shot_masks), "one-shot search", total=options.one_shot_masks):
        pass
    for factor in options.one_shot_limits:
        limit = factor * table.reference("mobilenet_v2")
        best = one_shot.best(limit)
        if best.latency_ms > limit:
            continue
        comparison.add(
            "static", f"best static <= {factor:g} MobileNetV2", bandit, StaticAgent(space, best.mask)
        )

    for name, folder in searches(options).items():
        graph = MetaGraph.load(folder / "meta_graph.safetensors")
        if graph.space != space:
            raise ValueError(
                f"runs: {folder} is in the search space {graph.space.config}, not {space.config}"
            )
        add_search(
            comparison,
            name,
            InstanceBandit(graph, test, table),
            load_agent(folder / "controller.safetensors"),
        )
    return comparison


def searches(options: Options) -> dict[str, Path]:
    """The directories of finished searches: those that come with the package, and those of the options."""
    with_package = {
        f"{name} (shipped)": shipped("meta_graph.safetensors").parent / name
        for name in SHIPPED_SEARCHES
        if (shipped("meta_graph.safetensors").parent / name / "controller.safetensors").is_file()
    }
    names = [folder.name for folder in options.runs]
    unique = {
        name if names.count(name) == 1 else str(folder): folder
        for name, folder in zip(names, options.runs, strict=True)
    }
    return {**with_package, **unique}


def add_search(comparison: Comparison, name: str, bandit: InstanceBandit, agent: Agent) -> None:
    """The rows of one controller: at each setting of its dial, and its masks shuffled."""
    if not isinstance(agent, RewardRegression):
        masks = comparison.add(name, name, bandit, agent)
        comparison.add_shuffled(name, f"{name}, shuffled", bandit, masks)
        return
    images = comparison.val.images[torch.arange(len(comparison.val))]
    for factor in comparison.options.dial:
        agent.dial(images, factor * comparison.table.reference("mobilenet_v2"))
        label = f"{name}, dial {factor:g}"
        masks = comparison.add(name, label, bandit, agent)
        comparison.add_shuffled(name, f"{label}, shuffled", bandit, masks)


def print_table(rows: list[dict[str, Any]]) -> None:
    """The comparison on the terminal."""
    table = Table("policy", "accuracy", "95 % interval", "table ms", "real ms", "reward", "networks")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        real = row["real_latency_ms"]
        table.add_row(
            row["name"],
            f"{100 * row['accuracy']:.1f}",
            f"{100 * row['accuracy_low']:.1f} .. {100 * row['accuracy_high']:.1f}",
            f"{row['latency_ms']:.2f}",
            "" if real is None else f"{real:.2f}",
            f"{row['reward']:.3f}",
            str(row["architectures"]),
        )
    Console(width=110).print(table)


def main(options: Options) -> None:
    """Compare, write, print."""
    torch.set_num_threads(options.threads)
    comparison = compare(options)
    config = {key: str(value) for key, value in dataclasses.asdict(options).items()}
    # The record is of no use without the results, which come last and so mark a finished comparison.
    make_record(comparison.test, comparison.choices, options.seed).save(options.out / "images.safetensors")
    results = {"options": config, "machine": machine(), "policies": comparison.rows}
    save_json(options.out / "results.json", results)
    print_table(comparison.rows)
    draw_figures(options.out / "results.json", options.out)
    print(f"wrote {options.out}/results.json, images.safetensors, figure_*.png")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
