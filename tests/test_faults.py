"""Callbacks that raise: images count once, training happens whole or not at all, and it goes on."""

from __future__ import annotations

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from instanas_env.callbacks import MetaGraphUpdate
from instanas_env.hooks import CallbackList, EnvCallback
from tests.tools.scratch import SCRATCH

N, IMAGES = 4, 8
MODES = ("SameStep", "NextStep", "Disabled")


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


def make(*callbacks: EnvCallback, mode: str = "SameStep", **options):
    envs = gym.make_vec("InstaNAS-v1", num_envs=N, autoreset_mode=mode, **SCRATCH, **options).unwrapped
    envs.bandit.image_set = envs.bandit.image_set.take(torch.arange(IMAGES))
    for callback in callbacks:
        envs.add_callback(callback)
    return envs


def play(envs, steps: int, error: type[BaseException] = OSError) -> list[np.ndarray]:
    """A client's loop that survives errors: after one it resets and goes on. Which images were acted on."""
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
    return shown + [raised]


@pytest.mark.parametrize(
    ("mode", "error"), [*((mode, OSError) for mode in MODES), ("SameStep", KeyboardInterrupt)]
)
@pytest.mark.parametrize("where", ["step", "epoch"])
def test_a_hook_that_raises_counts_nothing_twice(mode, where, error):
    """Four epochs, an error in the second call: images, epochs and what others are told are as without."""
    faulty, others = Faulty(where, 2, error), (Faulty(), Faulty())
    envs = make(others[0], faulty, others[1], mode=mode)
    *shown, raised = play(envs, 8, error)
    assert raised == 1
    undisturbed = Faulty()
    *expected, none = play(make(undisturbed, mode=mode), 8)
    assert none == 0 and all(np.array_equal(a, b) for a, b in zip(shown, expected, strict=True))
    for callback in (*others, faulty):
        assert callback.seen == undisturbed.seen
        assert np.array_equal(np.sort(np.reshape(callback.seen, (4, IMAGES))), [range(IMAGES)] * 4)
        assert callback.ends == 4
    assert envs.bandit.epoch == 4 and envs.bandit.state_dict()["acted"] == 0


def test_the_scalar_environment_counts_nothing_twice():
    env, faulty = gym.make("InstaNAS-v1", **SCRATCH).unwrapped, Faulty("step", 1)
    env.add_callback(faulty)
    env.reset(seed=0)
    with pytest.raises(OSError, match="disk full"):
        env.step(np.zeros(85))
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(85))
    env.reset()
    env.step(np.zeros(85))
    assert len(set(faulty.seen)) == 2 == env.bandit.state_dict()["acted"]


def test_an_end_of_an_epoch_stays_due_until_it_has_happened():
    """Raised three times: steps and resets are refused with the cause and change nothing."""
    faulty, after = Faulty("epoch", 1), Faulty()
    envs = make(faulty, after)
    envs.reset(seed=0)
    envs.step(np.zeros((N, 85)))
    with pytest.raises(OSError):
        envs.step(np.zeros((N, 85)))
    before, images = copy.deepcopy(envs.bandit.state_dict()), envs.images()
    for call in (envs.reset, lambda: envs.step(np.zeros((N, 85)))):
        faulty.left = 1
        with pytest.raises(OSError):
            call()
        assert envs.bandit.state_dict() == before and np.array_equal(envs.images(), images)
    with pytest.raises(RuntimeError, match="^state_dict: the end of epoch 0 failed and is still due"):
        envs.state_dict()
    with pytest.raises(ValueError, match="^actions: "):
        envs.step(np.full((N, 85), 2))
    assert (faulty.ends, after.ends, envs.bandit.epoch) == (0, 0, 0)
    info = envs.reset()[1]
    assert (faulty.ends, after.ends, envs.bandit.epoch) == (1, 1, 1)
    assert np.array_equal(envs.images(), images) and (info["epoch"] == 1).all()


def test_a_restart_that_raises_has_restarted():
    """All are told; the same images as after a restart that went well; a seeded reset drops what was due."""
    faulty, after = Faulty("epoch", 1), Faulty("restart", 2)
    envs = make(faulty, after)
    envs.reset(seed=0)
    envs.step(np.zeros((N, 85)))
    with pytest.raises(OSError):
        envs.step(np.zeros((N, 85)))
    with pytest.raises(OSError):
        envs.reset(seed=1)
    images, state = envs.images(), str(envs.state_dict())
    envs.reset(seed=1)
    assert np.array_equal(envs.images(), images) and str(envs.state_dict()) == state
    assert faulty.ends == 0


class Teacher:
    """Uniform logits; raises at call ``at``."""

    def __init__(self, at: int, error: type[BaseException]):
        self.left, self.error = at, error

    def __call__(self, inputs):
        self.left -= 1
        if self.left == 0:
            raise self.error("teacher")
        return torch.zeros(len(inputs), 10)


def run(at: int, error: type[BaseException] = RuntimeError):
    """Three epochs of two batches each; the ``at``-th batch fails. What there was before and after it."""
    update = MetaGraphUpdate(batch_size=4, teacher=Teacher(at, error))
    envs = make(update, augment=True)
    graph, states = envs.bandit.meta_graph, []
    envs.reset(seed=0)
    rng = np.random.default_rng(0)

    def state():
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


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other


@pytest.mark.parametrize(("at", "error"), [(2, RuntimeError), (4, KeyboardInterrupt)])
def test_an_epoch_of_training_happens_whole_or_not_at_all(at, error):
    """Weights, statistics, optimizer, mode and record as before; then all as if nothing had failed."""
    envs, update, (before, after, recorded) = run(at, error)
    assert equal(before, after) and recorded == IMAGES
    undisturbed, other, none = run(0)
    assert none == [] and len(update.history) == 3
    assert equal(update.history, other.history)
    assert equal(envs.bandit.meta_graph.state_dict(), undisturbed.bandit.meta_graph.state_dict())
    assert equal(update._optimizer.state_dict(), other._optimizer.state_dict())
    assert equal(envs.state_dict(), undisturbed.state_dict())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"learning_rate": float("nan")}, "learning_rate"), ({"learning_rate": -1}, "learning_rate"),
        ({"final_learning_rate": "0"}, "final_learning_rate"), ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"), ({"frozen_epochs": -1}, "frozen_epochs"), ({"batch_size": 0},
        "batch_size"),
        ({"batch_size": 1}, "batch_size"), ({"momentum": float("inf")}, "momentum"),
        ({"weight_decay": -1e-4}, "weight_decay"), ({"shuffle": "yes"}, "shuffle"), ({"shuffle": -1},
        "shuffle"),
        ({"teacher": 3}, "teacher"), ({"augmentation": True}, "augmentation"), ({"seed": -1}, "seed"),
    ],
    ids=str,
)  # fmt: skip
def test_options_of_the_training_are_refused_when_it_is_made(options, name):
    with pytest.raises(ValueError, match=f"^{name}: got "):
        MetaGraphUpdate(**options)


def test_a_callback_has_hooks():
    with pytest.raises(ValueError, match="^callback: got str; an EnvCallback will do"):
        CallbackList().add("callback")
