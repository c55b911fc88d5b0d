"""Callbacks that raise: images count once, training happens whole or not at all, and it goes on."""

from __future__ import annotations

import copy

import gymnasium as gym
import numpy as np
import pytest

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from instanas_env.callbacks import MetaGraphUpdate
from instanas_env.hooks import CallbackList
from tests.tools.faulty import IMAGES, Faulty, N, equal, make, play, taught
from tests.tools.scratch import SCRATCH

MODES = ("SameStep", "NextStep", "Disabled")


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


@pytest.mark.parametrize(("at", "error"), [(2, RuntimeError), (4, KeyboardInterrupt)])
def test_an_epoch_of_training_happens_whole_or_not_at_all(at, error):
    """Weights, statistics, optimizer, mode and record as before; then all as if nothing had failed."""
    envs, update, (before, after, recorded) = taught(at, error)
    assert equal(before, after) and recorded == IMAGES
    undisturbed, other, none = taught(0)
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
