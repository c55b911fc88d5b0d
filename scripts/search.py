"""The joint search (section 3.3): epochs of the controller and of the meta-graph in turn, bounds falling.

    instanas search reinforce --out runs/search
    instanas search regression --out runs/search_r --dial 0.5

Works through the environment's public API: ``MetaGraphUpdate`` trains the meta-graph between the agent's
epochs. Resumes where it was. Writes ``meta_graph.safetensors``, ``controller.safetensors``, a snapshot of
the controller per epoch, and ``history.jsonl``. Under torchrun each process has its shard of every step's
images, see instanas_env.training.distributed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from rich.progress import track
from torch import Tensor

from agents.agent import native
from agents.evaluation.awareness import validate
from agents.evaluation.scores import some_images
from agents.learning import LearningAgent
from agents.reward_regression import RewardRegression
from agents.saved import TYPICAL, save_data
from instanas_env import paper
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.matching import CONTROLLER, META_GRAPH
from instanas_env.training.run_directory import FREE, RunDirectory, machine
from scripts.begin import begin
from scripts.search_options import Options, Regression, make_envs, make_shard, make_update


def search(options: Options, run: RunDirectory) -> tuple[LearningAgent, gym.vector.VectorEnv]:
    """Run or resume the search; gives the agent and the environment with the trained meta-graph."""
    world = run.world
    bounds = {"upper": paper.SEARCH_UPPER, "best": paper.SEARCH_BEST, "epochs": options.epochs}
    envs = make_shard(options, world, augment=True, bounds=bounds)
    bandit = native(envs).bandit
    images = len(bandit.image_set)
    agent = options.agent.make(envs, options, images, world)
    update = make_update(options, bandit.meta_graph.num_classes, world)
    with world.one_first():
        validation = native(make_envs(options, "val", 1, bounds=bounds)).bandit
    validation.meta_graph = bandit.meta_graph
    files = {"meta_graph": options.weights_file, "latency_table": options.table_file}
    run.read(**files, teacher=options.teacher, menu=getattr(options.agent, "menu", None))
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
        label = f"{options.agent.name} epoch {epoch + 1}/{options.epochs}"
        rows = list(track(agent.train(remaining), label, total=steps, disable=not world.is_main))
        validation.refresh()
        validation.epoch = epoch
        if isinstance(agent, RewardRegression) and isinstance(options.agent, Regression):
            unit = validation.latency_table.reference("mobilenet_v2")
            agent.dial(some_images(validation.image_set), options.agent.dial * unit)
        row = {
            "epoch": epoch + 1,
            **{name: sum(r[name] for r in rows) / len(rows) for name in rows[0]},
            "upper_ms": validation.bounds.upper,
            "lower_ms": validation.bounds.lower,
            "meta_graph": update.history[-1] if update.history else None,
            "val": validate(validation, agent, options.seed).known(),
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


def main(options: Options, world: World = ALONE) -> None:
    """Search to the end, or from where an earlier call was stopped."""
    world = begin(options, world)
    run = RunDirectory(options.out, options, free=FREE, world=world)
    agent, envs = search(options, run)
    if world.is_main:
        bandit = native(envs).bandit
        record = {"options": run.config, "machine": machine(world), "history": run.history[-1:]}
        agent.save(options.out / CONTROLLER, record)
        bandit.meta_graph.save(options.out / META_GRAPH, record)
        typical = agent.space.repair(agent.masks(some_images(bandit.image_set, TYPICAL)))
        save_data(options.out, bandit.image_set, bandit.latency_table, typical)
        print(f"{run.history[-1]['val']}\nwrote {options.out}")
