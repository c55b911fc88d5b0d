"""The joint search (section 3.3): epochs of the controller and of the meta-graph in turn, bounds falling.

    python -m scripts.search --out runs/search --agent regression

Works through the environment's public API: ``MetaGraphUpdate`` trains the meta-graph between the agent's
epochs. Resumes where it was. Writes ``meta_graph.safetensors``, ``controller.safetensors``, a snapshot of
the controller per epoch, and ``history.jsonl``. Under torchrun each process has its shard of every step's
images, see instanas_env.distributed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from rich.progress import track
from torch import Tensor

from agents.agent import LearningAgent, native
from agents.blockdrop import RewardName
from agents.evaluation import choose_masks, score_masks, shuffle_between_images, some_images
from agents.reinforce import LogProbability
from agents.reward_regression import RewardRegression
from agents.saved import TYPICAL, save_data
from instanas_env import paper
from instanas_env.bandit import InstanceBandit
from instanas_env.data import LIGHT, Augmentation
from instanas_env.distributed import ALONE, World, launch
from instanas_env.seeding import generator_for
from scripts.log import show_log
from scripts.run_directory import RunDirectory, machine
from scripts.search_setup import make_agent, make_envs, make_shard, make_update

AgentName = Literal["reinforce", "regression", "blockdrop", "convnet-aig"]
Shuffle = Literal["on", "off", "early"]


@dataclass(frozen=True)
class Options:
    """What to search with, on what, and for how long."""

    out: Path
    """Directory of the run."""
    agent: AgentName = "regression"
    """The paper's self-critical REINFORCE, our reward regression, or a baseline of the paper."""
    dataset: str = "embedded"
    data_dir: Path | None = None
    meta_graph: Path | None = None
    """Pre-trained weights; by default the shipped ones."""
    latency_table: Path | None = None
    """By default the shipped one."""
    search_space: str = "lite"
    epochs: int = 10
    """Passes over the training images, each followed by a meta-graph epoch."""
    frozen_epochs: int = 0
    """So many epochs come first in which the meta-graph stays as it is."""
    num_envs: int = 256
    """Images a step, of all processes together."""
    shuffle: Shuffle = "on"
    """Policy random shuffling in the meta-graph's epochs; "early": in the first half only."""
    meta_graph_learning_rate: float = 0.02
    """Of the first meta-graph epoch; falls to a tenth."""
    augmentation: Augmentation = LIGHT
    """Of the images in the meta-graph's epochs; the controller sees lightly augmented ones."""
    teacher: Path | None = None
    """Weights of a network that the meta-graph imitates, such as MobileNetV2 trained alone; all its modules
    are on."""
    learning_rate: float | None = None
    """Of the controller; by default the agent's own."""
    latencies: tuple[float, float] = (0.4, 1.2)
    """Regression: mean latencies between which it explores, in multiples of MobileNetV2's path."""
    dial: float = 0.6
    """Regression: mean latency of the policy that is validated and saved, in the same unit."""
    random_epochs: int | None = None
    """Regression: so many epochs come first with random masks; by default the frozen ones, or one."""
    anneal: bool = True
    """Regression: its learning rate falls to 0 over the search."""
    naming_coefficient: float = 0.3
    """REINFORCE: weight of a second loss, which names the images; regression names them if it is not 0."""
    alpha: tuple[float, float] = (paper.ALPHA_START, paper.ALPHA_END)
    """REINFORCE: alpha of p', first and last."""
    wrong_reward: float = paper.WRONG_REWARD
    """R_T of a wrong answer; the regression agent reports it, but learns from right and wrong alone."""
    entropy_coefficient: tuple[float, float] = (0.003, 0.0006)
    """REINFORCE: weight of the entropy in the objective, first and last."""
    constant_rate: float = 0.5
    """REINFORCE: the part of the search after which its learning rate falls to 0."""
    samples_per_image: int = 4
    """REINFORCE: 1 is the paper's greedy baseline, more compare samples with each other."""
    log_probability_under: LogProbability = "p_prime"
    """REINFORCE: the distribution of equation (1), or the one that was sampled from."""
    block_reward: RewardName = "blocks"
    """BlockDrop: its own reward, or the environment's."""
    gamma: float = 5.0
    """BlockDrop: penalty of a wrong answer in its own reward."""
    curriculum_epochs: int = 0
    """BlockDrop: so many epochs free one block after the other, the last ones first."""
    target_rate: float = 0.2
    """ConvNet-AIG: share of each cell's modules that is to be on."""
    seed: int = 0
    threads: int = 1


def search(
    options: Options, run: RunDirectory, progress: Callable[..., Any] = track
) -> tuple[LearningAgent, gym.vector.VectorEnv]:
    """Run or resume the search; gives the agent and the environment with the trained meta-graph."""
    world = run.world
    bounds = {"upper": paper.SEARCH_UPPER, "best": paper.SEARCH_BEST, "epochs": options.epochs}
    envs = make_shard(options, world, augment=True, bounds=bounds)
    bandit = native(envs).bandit
    images = len(bandit.image_set)
    agent = make_agent(options, envs, images, world)
    update = make_update(options, world)
    with world.one_first():
        validation = native(make_envs(options, "val", 1, bounds=bounds)).bandit
    validation.meta_graph = bandit.meta_graph
    run.bind(train=bandit.image_set, val=validation.image_set)

    state = run.restore()
    if state is not None:
        agent.load_state_dict(state["agent"])
        bandit.meta_graph.load_state_dict(state["meta_graph"])
        update.load_state_dict(state["update"], bandit)
        bandit.refresh()
        native(envs).load_state_dict(waiting(state["envs"], world.own))
    native(envs).add_callback(update)
    run.claim()
    for epoch in range(len(run.history), options.epochs):
        start = time.perf_counter()
        # As many steps as bring the number of images acted on past the end of this pass.
        remaining = images * (epoch + 1) - agent.num_timesteps
        steps = -(-remaining // options.num_envs)
        label = f"{options.agent} epoch {epoch + 1}/{options.epochs}"
        rows = list(progress(agent.train(remaining), label, total=steps, disable=not world.is_main))
        validation.refresh()
        validation.epoch = epoch
        if isinstance(agent, RewardRegression):
            unit = validation.latency_table.reference("mobilenet_v2")
            agent.dial(some_images(validation.image_set), options.dial * unit)
        row = {
            "epoch": epoch + 1,
            **{name: sum(r[name] for r in rows) / len(rows) for name in rows[0]},
            "upper_ms": validation.bounds.upper,
            "lower_ms": validation.bounds.lower,
            "meta_graph": update.history[-1] if update.history else None,
            "val": validate(agent, validation, options.seed),
            "seconds": round(time.perf_counter() - start, 1),
        }
        if world.is_main:
            agent.save(options.out / "controllers" / f"epoch_{epoch + 1:03d}.safetensors")
        run.checkpoint(
            row,
            {
                "agent": agent.state_dict(),
                "meta_graph": bandit.meta_graph.state_dict(),
                "update": update.state_dict(),
                "envs": waiting(native(envs).state_dict(), world.gather),
            },
        )
    return agent, envs


def waiting(state: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """The state of an environment with other images waiting: all processes' for this one's, or back."""
    shown = state["contexts"]  # None before the first reset
    contexts = shown and {name: change(tensor) for name, tensor in shown.items()}
    flags = change(torch.tensor(state["waiting"])).tolist()
    return {**state, "contexts": contexts, "waiting": flags}


def validate(agent: LearningAgent, bandit: Any, seed: int) -> dict[str, float]:
    """The agent's deterministic policy on a split, and the same masks shuffled between images."""
    masks = choose_masks(agent, bandit.image_set)
    own = score_masks(bandit, masks)
    shuffled = score_masks(bandit, shuffle_between_images(masks, generator_for(seed, 5)))
    return {
        "accuracy": float(own.correct.mean()),
        "shuffled_accuracy": float(shuffled.correct.mean()),
        "latency_ms": float(own.latency_ms.mean()),
        "reward": float(own.reward.mean()),
        "architectures": len(np.unique(own.mask.reshape(len(masks), -1), axis=0)),
    }


def save_results(options: Any, run: RunDirectory, agent: LearningAgent, bandit: InstanceBandit) -> None:
    """Write the controller and the meta-graph of a finished run, with its record, and what deploys them."""
    if run.world.is_main:
        record = {"options": run.config, "machine": machine(run.world), "history": run.history[-1:]}
        agent.save(options.out / "controller.safetensors", record)
        bandit.meta_graph.save(options.out / "meta_graph.safetensors", record)
        typical = agent.space.repair(agent.masks(some_images(bandit.image_set, TYPICAL)))
        save_data(options.out, bandit.image_set, bandit.latency_table, typical)


def main(options: Options, world: World = ALONE) -> None:
    """Search to the end, or from where an earlier call was stopped."""
    torch.set_num_threads(options.threads)
    show_log(world.is_main)
    run = RunDirectory(options.out, options, free=("out", "data_dir"), world=world)
    agent, envs = search(options, run)
    save_results(options, run, agent, native(envs).bandit)
    if world.is_main:
        print(f"{run.history[-1]['val']}\nwrote {options.out}")


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    with launch() as world:
        main(chosen, world)
