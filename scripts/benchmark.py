"""The benchmark regime: frozen meta-graph, fixed bounds. Is a controller better than the best fixed mask?

    python -m scripts.benchmark --out runs/benchmark --dataset fashion_mnist

For every seed: search fixed masks on the validation split, train the regression controller through the
plain environment API to choose among the best of them, and compare on the test split. Reported over
seeds with 95 % intervals (Student's t): the gain over the best fixed mask that is no slower, and the loss
when the controller's masks are shuffled between images. Resumes after the last finished seed.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.agent import native
from agents.arms import MenuArms
from agents.evaluation import choose_masks, mean_interval, score_masks, shuffle_between_images, some_images
from agents.files import load_agent
from agents.one_shot import OneShotSearch
from agents.reward_regression import RewardRegression
from instanas_env.bandit import InstanceBandit
from instanas_env.build import SHIPPED_SPACE, search_space_name
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import save_json
from scripts.life import end_with_parent
from scripts.log import show_log
from scripts.run_directory import RunDirectory, machine


@dataclass(frozen=True)
class Options:
    """What to train, how often, and what to compare with."""

    out: Path
    """Directory for benchmark.json and checkpoints."""
    dataset: str = "embedded"
    data_dir: Path | None = None
    meta_graph: Path | None = None
    """By default the shipped one; its file tells the search space."""
    latency_table: Path | None = None
    """Of the same search space; by default the shipped one."""
    seeds: int = 3
    total_timesteps: int = 864_000
    """Images that the controller acts on; each gets one mask of the menu at random."""
    menu: int = 24
    """Masks the controller chooses from; 0 lets it switch every module."""
    dial: tuple[float, ...] = (0.5, 0.55, 0.6)
    """Settings of the dial: mean latency of the networks on validation, in multiples of MobileNetV2's."""
    one_shot_masks: int = 300
    """Fixed masks ranked on the validation split."""
    one_shot_images: int = 6000
    """Images of that split that each is ranked on."""
    one_shot_latency: tuple[float, float] = (0.3, 1.0)
    """Of the fixed masks: from, to, in multiples of MobileNetV2's latency."""
    known: Path | None = None
    """A regression controller with a menu: its masks are ranked first, such as those that the meta-graph was
    fine-tuned for (scripts.finetune --masks random)."""
    num_envs: int = 256
    threads: int = 1
    workers: int = 1
    """Seeds run at a time, a process each."""


def make_envs(options: Options, split: str, num_envs: int, **more: Any) -> gym.vector.VectorEnv:
    """The benchmark environment on a split, in the search space of the meta-graph."""
    space = SHIPPED_SPACE
    if options.meta_graph is not None:
        space = search_space_name(SearchSpace.of_file(options.meta_graph))
    return gym.make_vec(
        "InstaNAS-v1",
        num_envs=num_envs,
        dataset=options.dataset,
        data_dir=None if options.data_dir is None else str(options.data_dir),
        search_space=space,
        meta_graph=None if options.meta_graph is None else str(options.meta_graph),
        latency_table=None if options.latency_table is None else str(options.latency_table),
        split=split,
        **more,
    )


def known_masks(path: Path | None, space: SearchSpace) -> Tensor:
    """The menu of a controller ``(K, num_cells, num_modules)``; of none, no masks."""
    if path is None:
        return torch.zeros(0, space.num_cells, space.num_modules, dtype=torch.bool)
    agent = load_agent(path)
    if not isinstance(agent, RewardRegression) or agent.menu is None:
        raise ValueError(f"known: {path} holds no regression controller with a menu")
    if agent.space != space:
        raise ValueError(f"known: {path} is for {agent.space.config}, the meta-graph for {space.config}")
    return MenuArms(space, agent.menu).menu


def run_seed(options: Options, seed: int) -> dict[str, Any]:
    """One controller and one search of fixed masks; a row for each setting of the dial."""
    torch.set_num_threads(options.threads)
    envs = make_envs(options, "train", options.num_envs, augment=True)
    val, test = (native(make_envs(options, split, 1)).bandit for split in ("val", "test"))
    mobilenet_v2 = val.latency_table.reference("mobilenet_v2")
    low, high = (factor * mobilenet_v2 for factor in options.one_shot_latency)
    one_shot = OneShotSearch(val, seed, options.one_shot_images, (low, high))
    quiet = options.workers > 1  # bars of several processes would overwrite each other
    known = known_masks(options.known, val.space)
    masks = len(known) + options.one_shot_masks
    ranked = chain(one_shot.rank_masks(known), one_shot.rank(options.one_shot_masks))
    for _ in track(ranked, f"seed {seed}: fixed masks", total=masks, disable=quiet):
        pass
    total = options.total_timesteps
    agent = RewardRegression(
        envs,
        menu=one_shot.menu(options.menu) if options.menu else None,
        random_timesteps=total if options.menu else total // 2,
        anneal_timesteps=total,
        gradient_steps=1,
        num_classes=len(val.image_set.classes),
        seed=seed,
    )
    steps = -(-total // options.num_envs)
    for _ in track(agent.train(total), f"seed {seed}: controller", total=steps, disable=quiet):
        pass
    agent.save(options.out / f"controller_{seed}.safetensors")
    rows = []
    images = some_images(val.image_set)
    for factor in options.dial:
        agent.dial(images, factor * mobilenet_v2)
        rows.append({"dial": factor, **compare(agent, one_shot, val, test, seed)})
    return {"seed": seed, "rows": rows}


def compare(
    agent: RewardRegression, one_shot: OneShotSearch, val: InstanceBandit, test: InstanceBandit, seed: int
) -> dict[str, float]:
    """Test accuracy of a controller, of its shuffled masks, and of the best fixed masks no slower than it.

    How slow "it" is, is read off the validation split: its networks alone, and with its own time.
    """
    on_val = score_masks(val, choose_masks(agent, val.image_set))
    budget = float(on_val.latency_ms.mean())
    with_controller = budget + val.latency_table.controller
    masks = choose_masks(agent, test.image_set)
    own = score_masks(test, masks)
    shuffled = score_masks(test, shuffle_between_images(masks, generator_for(seed, 6)))

    def fixed(limit_ms: float) -> float:
        """Test accuracy of the fixed mask that was best on validation within a latency."""
        best = one_shot.best(limit_ms)
        if best.latency_ms > limit_ms:
            raise ValueError(
                f"one_shot_masks: no fixed mask found within {limit_ms:.3g} ms; rank more of them"
            )
        return float(score_masks(test, best.mask.expand(len(masks), -1, -1)).correct.mean())

    accuracy = float(own.correct.mean())
    return {
        "latency_ms": float(own.latency_ms.mean()),
        "accuracy": accuracy,
        "architectures": len(torch.unique(masks.flatten(1), dim=0)),
        "gain_over_fixed": accuracy - fixed(budget),
        "gain_over_fixed_with_controller": accuracy - fixed(with_controller),
        "loss_when_shuffled": accuracy - float(shuffled.correct.mean()),
    }


def summarise_seeds(seeds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and 95 % interval over seeds of every figure, for each setting of the dial."""
    summary = []
    for position, first in enumerate(seeds[0]["rows"]):
        rows = [seed["rows"][position] for seed in seeds]
        figures = {name: mean_interval([row[name] for row in rows]) for name in first if name != "dial"}
        summary.append({"dial": first["dial"], **figures})
    return summary


def print_summary(summary: list[dict[str, Any]]) -> None:
    """The summary on the terminal; differences in points of accuracy."""
    table = Table(
        "dial", "ms", "accuracy", "networks", "over fixed mask", "with controller", "lost when shuffled"
    )
    for row in summary:

        def points(name: str, row: dict[str, Any] = row) -> str:
            mean, low, high = row[name]
            interval = "" if low is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
            return f"{100 * mean:.1f}{interval}"

        table.add_row(
            f"{row['dial']:g}",
            f"{row['latency_ms'][0]:.2f}",
            points("accuracy"),
            f"{row['architectures'][0]:.0f}",
            points("gain_over_fixed"),
            points("gain_over_fixed_with_controller"),
            points("loss_when_shuffled"),
        )
    Console(width=110).print(table)


def main(options: Options) -> None:
    """Run the seeds that are not done yet, write, print."""
    show_log()
    run = RunDirectory(options.out, options, free=("out", "data_dir", "seeds", "workers"))
    run.bind(**{split: native(make_envs(options, split, 1)).bandit.image_set for split in ("val", "test")})
    run.restore()
    missing = range(len(run.history), options.seeds)
    one_seed = partial(run_seed, options)
    if options.workers == 1:
        for row in map(one_seed, missing):
            run.checkpoint(row, {})
    else:
        with ProcessPoolExecutor(options.workers, get_context("spawn"), end_with_parent) as pool:
            for row in track(pool.map(one_seed, missing), "seeds", total=len(missing)):
                run.checkpoint(row, {})
    summary = summarise_seeds(run.history[: options.seeds])
    save_json(
        options.out / "benchmark.json",
        {"options": run.config, "machine": machine(), "summary": summary, "seeds": run.history},
    )
    print_summary(summary)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
