"""Make a menu of parts around the mask that a search ended with, for a regression controller to choose from.

    python -m scripts.menu --run runs/reinforce --out menu.safetensors
    python -m scripts.finetune --run runs/reinforce --controller menu.safetensors --masks random \\
        --out runs/menu
    python -m scripts.search --agent regression --start-from menu.safetensors \\
        --meta-graph runs/menu/meta_graph.safetensors --shuffle off --out runs/experts

The mask is the one that the controller of ``run`` gives to most validation images. What is written is a
regression controller that knows the menu and has learnt nothing yet.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from agents.choices import Pick, controller_file
from agents.evaluation import choose_masks
from agents.files import load_agent
from agents.menu import parts_around
from agents.reward_regression import RewardRegression
from instanas_env.build import shipped
from instanas_env.data import load_images
from instanas_env.latency import LatencyTable


@dataclass(frozen=True)
class Options:
    """Around what, and how large."""

    run: Path
    """Directory of a search, or another one with controller.safetensors."""
    out: Path
    """File for the controller that knows the menu."""
    prefer: Pick | None = None
    """Which of the trade-offs that scripts.choose picked; by default the search's last controller."""
    latency_table: Path | None = None
    """Of the same search space; by default the shipped one."""
    dataset: str = "embedded"
    data_dir: Path | None = None
    places: tuple[str, ...] = ("7:0,8:0,9:0", "11:0,12:0", "14:0,15:0", "16:0,16:2")
    """Where there is a choice: in each place one of these modules runs, as cell:module, or what the mask has
    in those cells, or, if they keep their shape, none."""
    num_classes: int = 10
    """Classes that the controller is to name while it learns; 0: none."""
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
    agent = load_agent(controller_file(options.run, options.prefer))
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
        seed=options.seed,
        space=space,
        table=table,
    )
    learner.save(options.out, {"run": str(options.run), "places": list(options.places)})
    latencies = [group.aminmax() for group in learner.arms.latencies(table.modules).split(groups)]
    ends = (sum(end[side] for end in latencies) + table.stem + table.head for side in (0, 1))
    fastest, slowest = (f"{ms:.2f}" for ms in ends)
    print(
        f"{math.prod(groups)} masks of {fastest} to {slowest} ms, around one of {table.lookup(most):.2f} ms"
    )
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
