"""Callbacks that raise, and clients and training that live through it; for tests of faults."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from instanas_env.callbacks import EnvCallback, MetaGraphUpdate
from tests.tools.scratch import SCRATCH

N, IMAGES = 4, 8


class Faulty(EnvCallback):
    """Raises in the hook ``where`` at its ``at``-th call, until then and afterwards writes down the steps."""

    def __init__(self, where: str = "", at: int = 0, error: type[BaseException] = OSError):
        self.where, self.left, self.error = where, at, error
        self.seen: list[int] = []
        self.ends = 0

    def _call(self, where: str) -> None:
        if where == self.where:
            self.left -= 1
            if self.left == 0:
                raise self.error("disk full")

    def on_step(self, step) -> None:
        self.seen += step.index.tolist()
        self._call("step")

    def on_epoch_end(self, env) -> None:
        self._call("epoch")
        self.ends += 1

    def on_restart(self, env) -> None:
        self._call("restart")


def make(*callbacks: EnvCallback, mode: str = "SameStep", **options: Any) -> Any:
    """Four images a step out of eight, untrained weights."""
    envs: Any = gym.make_vec("InstaNAS-v1", num_envs=N, autoreset_mode=mode, **SCRATCH, **options).unwrapped
    envs.bandit.image_set = envs.bandit.image_set.take(torch.arange(IMAGES))
    for callback in callbacks:
        envs.add_callback(callback)
    return envs


def play(envs: Any, steps: int, error: type[BaseException] = OSError) -> list[Any]:
    """A client's loop that survives errors: after one it resets and goes on.

    Gives which images were acted on, step by step, and last how many errors there were.
    """
    shown, raised = [], 0
    envs.reset(seed=0)
    while len(shown) < steps:
        waiting = envs.bandit.epoch, envs.images()
        try:
            _, _, terminated, _, info = envs.step(np.zeros((N, 85), np.int8))
        except error:
            raised += 1
            envs.reset()
            shown.append(waiting[1])
            continue
        if terminated.all():
            shown.append(waiting[1])
            if envs.autoreset_mode.value == "Disabled":
                envs.reset()
    return [*shown, raised]


class Teacher:
    """Uniform logits; raises at call ``at``."""

    def __init__(self, at: int, error: type[BaseException]):
        self.left, self.error = at, error

    def __call__(self, inputs):
        self.left -= 1
        if self.left == 0:
            raise self.error("teacher")
        return torch.zeros(len(inputs), 10)


def taught(at: int, error: type[BaseException] = RuntimeError) -> tuple[Any, MetaGraphUpdate, list[Any]]:
    """Three epochs of two batches each; the ``at``-th batch fails. What there was before and after it."""
    update = MetaGraphUpdate(batch_size=4, teacher=Teacher(at, error))
    envs = make(update, augment=True)
    graph, states = envs.bandit.meta_graph, []
    envs.reset(seed=0)
    rng = np.random.default_rng(0)

    def state() -> Any:
        optimizer = None if update._optimizer is None else update._optimizer.state_dict()
        modes = [module.training for module in graph.modules()]
        return copy.deepcopy((graph.state_dict(), optimizer, modes, update.history))

    for _ in range(7):
        actions, before = rng.integers(0, 2, (N, 85)), state()
        try:
            envs.step(actions)
        except error:
            states = [before, state(), sum(len(index) for index in update._indices)]
            envs.reset()
    return envs, update, states


def equal(one: Any, other: Any) -> bool:
    """Whether two states are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other
