"""Both controllers on the frozen meta-graph over several seeds, against fixed masks (the benchmark regime).

    instanas benchmark --out runs/frozen --dataset fashion_mnist --seeds 5

Everything is chosen on the validation split: the best of ``masks`` fixed masks, the menu that regression
chooses from, and its dial, the fastest at which it is as accurate as the best fixed mask. The test split is
looked at once. Resumes: what is in the folder is not made again. Writes ``benchmark.json``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from rich.progress import track

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.agent import Agent, LearningAgent
from agents.evaluation.awareness import measure_awareness
from agents.evaluation.scores import choose_masks, mean_interval, score_masks
from agents.one_shot import Candidate, OneShotSearch
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.static import StaticAgent
from instanas_env import reward
from instanas_env.bandit import InstanceBandit
from instanas_env.build import build_bandit
from instanas_env.storage import load_json, save_json
from instanas_env.training.run_directory import RunDirectory, machine
from scripts.log import show_log


@dataclass(frozen=True)
class Options:
    """On what, how long, how often."""

    out: Path
    """Directory of the run."""
    dataset: str = "embedded"
    data_dir: Path | None = None
    meta_graph: Path | None = None
    """By default the shipped one."""
    latency_table: Path | None = None
    """By default the shipped one."""
    masks: int = 300
    """Fixed masks that are ranked on all validation images, half of them mutations of the best."""
    menu: int = 53
    """So many of these regression chooses from."""
    regression_images: int = 8_000
    """Training images on which regression asks for the answers of the whole menu."""
    gradient_steps: int = 40
    """Of regression, for every 256 of these images."""
    reinforce_images: int = 420_000
    """Training images that REINFORCE acts on."""
    naming_coefficient: float = 0.3
    """REINFORCE: weight of the second loss, which names the images; 0 is the pure bandit."""
    seeds: int = 5
    seed: int = 0
    threads: int = 1


class Frozen:
    """The experiment: environments, fixed masks, agents."""

    def __init__(self, options: Options):
        self.options = options
        self.keywords: dict[str, Any] = {
            name: None if value is None else str(value)
            for name, value in (
                ("dataset", options.dataset),
                ("data_dir", options.data_dir),
                ("meta_graph", options.meta_graph),
                ("latency_table", options.latency_table),
            )
        }
        self.val, self.test = (build_bandit(split=split, **self.keywords) for split in ("val", "test"))

    def envs(self) -> gym.vector.VectorEnv:
        """A fresh training environment."""
        return gym.make_vec("InstaNAS-v1", num_envs=256, split="train", **self.keywords)

    def fixed(self) -> OneShotSearch:
        """The fixed masks, ranked on all validation images."""
        search = OneShotSearch(self.val, self.options.seed, images=len(self.val.image_set))
        for _ in track(search.rank(self.options.masks), "fixed masks", total=self.options.masks):
            pass
        return search

    def regression(self, menu: torch.Tensor, seed: int, target: float) -> LearningAgent:
        """A regression controller, dialled to be as accurate as ``target`` on the validation images."""
        options = self.options
        agent = RewardRegression(
            self.envs(),
            random_timesteps=options.regression_images,
            masks_per_image=len(menu),
            menu=menu,
            replay=-(-options.regression_images // 256),
            gradient_steps=options.gradient_steps,
            anneal_timesteps=options.regression_images,
            num_classes=len(self.val.image_set.classes),
            seed=seed,
        ).learn(options.regression_images, progress_bar=True)
        agent.trade_off = fastest_trade_off(agent, self.val, target)
        return agent

    def reinforce(self, seed: int) -> LearningAgent:
        """The paper's agent."""
        agent = SelfCriticalReinforce(
            self.envs(), naming_coefficient=self.options.naming_coefficient, seed=seed
        )
        return agent.learn(self.options.reinforce_images, progress_bar=True)


def fastest_trade_off(agent: RewardRegression, val: InstanceBandit, target: float) -> float:
    """The largest lambda at which the policy is at least as accurate as ``target``; the best if none is."""
    accuracy = {}
    for trade_off in np.geomspace(30.0, 0.03, 25):  # logits per ms
        agent.trade_off = float(trade_off)
        accuracy[agent.trade_off] = float(score_masks(val, choose_masks(agent, val.image_set)).correct.mean())
        if accuracy[agent.trade_off] >= target:
            return agent.trade_off
    return max(accuracy, key=lambda trade_off: accuracy[trade_off])


def worth(bandit: InstanceBandit, candidate: Candidate) -> float:
    """Mean reward of a fixed mask, from its accuracy."""
    latency = torch.tensor(candidate.latency_ms, dtype=torch.float64)
    earned = bandit.correct_reward * reward.latency_reward(latency, bandit.bounds).item()
    return candidate.accuracy * earned + (1 - candidate.accuracy) * bandit.wrong_reward


def rows(experiment: Frozen, run: RunDirectory) -> Iterator[dict[str, Any]]:
    """A row for every policy and seed on the test split; what is in the run's folder is not made again."""
    options, space = experiment.options, experiment.val.space
    run.bind(val=experiment.val.image_set, test=experiment.test.image_set)
    run.claim()
    file = options.out / "fixed.json"
    if not file.exists():
        search = experiment.fixed()
        best = max(search.candidates, key=lambda candidate: worth(experiment.val, candidate))
        frontier = [[c.accuracy, c.latency_ms, c.mask.flatten().int().tolist()] for c in search.frontier]
        chosen = search.menu(options.menu).flatten(1).int().tolist()
        best_row = [best.accuracy, best.latency_ms, best.mask.flatten().int().tolist()]
        save_json(file, {"best": best_row, "frontier": frontier, "menu": chosen})
    fixed = load_json(file)
    target, _, bits = fixed["best"]
    menu = torch.tensor(fixed["menu"]).bool().view(-1, space.num_cells, space.num_modules)
    best_mask = torch.tensor(bits).bool().view(space.num_cells, space.num_modules)
    policies: dict[str, Callable[[int], Agent]] = {
        "best fixed mask": lambda seed: StaticAgent(space, best_mask)
    }
    if options.regression_images:
        policies["regression"] = lambda seed: experiment.regression(menu, seed, target)
    if options.reinforce_images:
        policies["reinforce"] = experiment.reinforce
    for seed in range(options.seed, options.seed + options.seeds):
        for name, make in policies.items():
            if name == "best fixed mask" and seed != options.seed:
                continue
            result = options.out / f"{name.replace(' ', '_')}_{seed}.json"
            if not result.exists():
                agent = make(seed)
                agent.save(result.with_suffix(".safetensors"))
                on_val, _ = measure_awareness(experiment.val, agent)
                on_test, _ = measure_awareness(experiment.test, agent)
                figures = {"val": dataclasses.asdict(on_val), "test": dataclasses.asdict(on_test)}
                save_json(result, {"policy": name, "seed": seed, **figures})
            yield load_json(result)


def summary(results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean over seeds of every figure on the test split, and its 95 % interval."""
    means: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["policy"] for row in results):
        own = [row["test"] for row in results if row["policy"] == name]
        figures = [key for key, value in own[0].items() if isinstance(value, (int, float))]
        means[name] = {key: mean_interval([row[key] for row in own]) for key in figures}
        for figure, others in (("shuffled", "reward"), ("shuffled", "accuracy"), ("most_used", "reward")):
            lost = [row[others] - row[f"{figure}_{others}"] for row in own]
            means[name][f"lost_{figure}_{others}"] = mean_interval(lost)
    return means


def main(options: Options) -> None:
    """Make what is missing, print a line for each policy and seed, write."""
    torch.set_num_threads(options.threads)
    show_log()
    run = RunDirectory(options.out, options, free=("out", "data_dir", "seeds"))
    experiment = Frozen(options)
    run.bind(val=experiment.val.image_set, test=experiment.test.image_set)
    results = []
    for row in rows(experiment, run):
        results.append(row)
        test = row["test"]
        print(
            f"{row['policy']:16s} seed {row['seed']}  reward {test['reward']:.3f}"
            f"  {100 * test['accuracy']:.2f} % at {test['latency_ms']:.3f} ms  {test['networks']} networks"
            f"  shuffled {100 * test['shuffled_accuracy']:.2f} %, {test['shuffled_reward']:.3f}",
            flush=True,
        )
    record = {"options": run.config, "machine": machine()}
    save_json(options.out / "benchmark.json", {**record, "rows": results, "means": summary(results)})
