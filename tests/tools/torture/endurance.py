"""A million images acted on, a hundred interleaved epochs: images counted, memory measured."""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from instanas_env import MetaGraphUpdate
from instanas_env.seeding import generator_for
from tests.tools.scratch import SCRATCH
from tests.tools.torture.verdicts import Case, Tally, Wrong

WARM_UP = 0.5
"""Part of the steps after which memory is measured first; oneDNN keeps kernels for every batch size."""
LIVE, TWIN = "live images", "images of the twin"


def memory_mb() -> float:
    """What this process holds at present; elsewhere than on Linux, what it held at most."""
    gc.collect()
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def act(tally: Tally, name: str, envs: Any, images: int, until: float) -> Iterator[int]:
    """Act on so many images, or until that time; yields how many came. Each must come once a pass."""
    _, info = envs.reset(seed=0)
    size, batch = len(envs.unwrapped.bandit.image_set), envs.num_envs
    seen, came, before = np.zeros(size, np.int64), 0, memory_mb()
    envs.action_space.seed(0)
    for step in range(max(2, images // batch)):
        _, reward, _, _, info = envs.step(envs.action_space.sample())
        seen += np.bincount(info["final_info"]["index"], minlength=size)
        came += batch
        if not np.isfinite(reward).all():
            raise Wrong(f"step {step}: reward {reward}")
        if step == int(WARM_UP * images / batch):
            before = memory_mb()
        yield batch
        if time.time() > until:
            break
    tally.grown_mb = max(tally.grown_mb, memory_mb() - before)
    tally.done[name] += came

    def check() -> None:
        if seen.sum() != came or seen.max() - seen.min() > 1:
            raise Wrong(f"of {came} images one came {seen.min()} times, another {seen.max()} times")

    tally.try_case(Case(f"{came} {name}", check, (), True), "endurance")
    envs.close()


def steps(tally: Tally, images: int, live: float, until: float) -> Iterator[int]:
    """``images`` in all, the part ``live`` of them on the network and the others on its twin."""
    on_network = int(images * live)
    envs = gym.make_vec("InstaNAS-v1", num_envs=200, **SCRATCH)
    yield from act(tally, LIVE, envs, on_network, until)
    twin = gym.make_vec("InstaNASTabular-v1", num_envs=20, split="val", observation="index")
    yield from act(tally, TWIN, twin, images - on_network, until)


def epochs(tally: Tally, count: int, until: float) -> Iterator[int]:
    """So many epochs of a client and of the meta-graph in turns on 16 images, or until that time."""
    update = MetaGraphUpdate(batch_size=8, learning_rate=0.01, final_learning_rate=0.001, epochs=count)
    envs: Any = gym.make_vec("InstaNAS-v1", num_envs=8, augment=True, **SCRATCH).unwrapped
    envs.bandit.image_set = envs.bandit.image_set.take(torch.arange(16))
    envs.add_callback(update)
    envs.reset(seed=0)
    generator, space, before = generator_for(0), envs.bandit.space, memory_mb()
    done = 0
    for epoch in range(count):
        if time.time() > until:
            break
        done += 1
        for _ in range(2):
            envs.step(space.random_masks(8, 0.3, generator).flatten(1).numpy())
        if epoch == int(WARM_UP * count):
            before = memory_mb()
        yield 1
    tally.grown_mb = max(tally.grown_mb, memory_mb() - before)
    tally.done["interleaved epochs"] += done

    def check() -> None:
        finite = all(torch.isfinite(weight).all() for weight in envs.bandit.meta_graph.state_dict().values())
        if len(update.history) != done or envs.bandit.epoch != done or not finite:
            raise Wrong(
                f"{len(update.history)} epochs of training, {envs.bandit.epoch} passes, finite: {finite}"
            )

    tally.try_case(Case(f"{done} interleaved epochs", check, (), True), "endurance")
