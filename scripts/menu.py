"""Put a menu of parts around a trained network, for a regression controller to choose from.

    python -m scripts.menu --run runs/reinforce_finetuned --out runs/menu
    python -m scripts.search --agent regression --start-from runs/menu/controller.safetensors \\
        --meta-graph runs/menu/meta_graph.safetensors --shuffle off --out runs/experts

The network is the one that the controller of ``run`` gives to most validation images. What is written is a
regression controller that knows the menu and has learnt nothing yet, and the meta-graph of ``run``, in which
modules that the network has not used join it quietly (``instanas_env/growth.py``).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from agents.evaluation import choose_masks
from agents.files import load_agent
from agents.menu import parts_around
from agents.reward_regression import RewardRegression
from instanas_env.build import shipped
from instanas_env.data import load_images
from instanas_env.growth import quieten
from instanas_env.latency import LatencyTable
from instanas_env.meta_graph import MetaGraph
from scripts.matching import CONTROLLER, META_GRAPH


@dataclass(frozen=True)
class Options:
    """Around what, and how large."""

    run: Path
    """Directory with controller.safetensors and meta_graph.safetensors."""
    out: Path
    """Directory for the same."""
    latency_table: Path | None = None
    """Of the same search space; by default the shipped one."""
    dataset: str = "embedded"
    data_dir: Path | None = None
    places: tuple[str, ...] = ("8:0,9:0", "11:0,12:0", "14:0,15:0")
    """Where there is a choice: in each place one of these modules runs, as cell:module, or what the mask has
    in those cells, or, if they keep their shape, none."""
    num_classes: int = 10
    """Classes that the controller is to name while it learns, and that parts are worth something to; 0:
    none."""
    seed: int = 0
    threads: int = 1


def parse_place(text: str) -> list[tuple[int, int]]:
    """ "14:0,15:0" as [(14, 0), (15, 0)]."""
    pairs = [re.fullmatch(r"(\d+):(\d+)", word.strip()) for word in text.split(",")]
    if not all(pairs):
        raise ValueError(f"places: got {text!r}; cell:module with commas between, as in '14:0,15:0', will do")
    return [(int(pair[1]), int(pair[2])) for pair in pairs if pair]


def main(options: Options) -> None:
    """Find the mask, vary it, write, print."""
    torch.set_num_threads(options.threads)
    agent, meta_graph = load_agent(options.run / CONTROLLER), MetaGraph.load(options.run / META_GRAPH)
    space = agent.space
    table = LatencyTable.load(options.latency_table or shipped("latency.json"))
    if table.space != space:
        raise ValueError(f"latency_table: for {table.space.config}, but the run is for {space.config}")
    images = load_images(options.dataset, "val", options.data_dir, space.resolution)
    masks, counts = torch.unique(space.repair(choose_masks(agent, images)), dim=0, return_counts=True)
    most = masks[counts.argmax()]
    parts, groups = parts_around(space, most, [parse_place(place) for place in options.places])
    learner = RewardRegression(
        None,
        menu=parts,
        groups=groups,
        num_classes=options.num_classes,
        class_gains=options.num_classes > 0,
        seed=options.seed,
        space=space,
        table=table,
    )
    record = {"run": str(options.run), "places": list(options.places)}
    learner.save(options.out / CONTROLLER, record)
    quieten(meta_graph, parts.any(0) & ~most)
    meta_graph.save(options.out / META_GRAPH, record)
    latencies = [group.aminmax() for group in learner.arms.latencies(table.modules).split(groups)]
    ends = (sum(end[side] for end in latencies) + table.stem + table.head for side in (0, 1))
    fastest, slowest = (f"{ms:.2f}" for ms in ends)
    print(
        f"{math.prod(groups)} masks of {fastest} to {slowest} ms, around one of {table.lookup(most):.2f} ms"
    )
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
