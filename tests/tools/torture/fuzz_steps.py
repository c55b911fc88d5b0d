"""Fuzzed actions and options of reset, on the live environment and its twin; rewards computed anew here."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from instanas_env import paper
from tests.tools.scratch import SCRATCH, TABLE
from tests.tools.torture.values import Rng, disguised, odd, pick, spoiled, told
from tests.tools.torture.verdicts import NAMED_ERRORS, Case, Lost, Wrong

ENVS = 2  # images a step of a vector environment
MENU = [[0] * 85, [1] * 85, [1, 0] * 42 + [0]]
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "bits": ("InstaNAS-v1", SCRATCH),
    "cells": ("InstaNAS-v1", {**SCRATCH, "actions": "cells", "layout": "HWC"}),
    "blocks": ("InstaNAS-v1", {**SCRATCH, "actions": "blocks", "wrong_reward": 0.0}),
    "menu": ("InstaNAS-v1", {**SCRATCH, "actions": MENU, "autoreset_mode": "Disabled"}),
    "twin": ("InstaNASTabular-v1", {"split": "val", "observation": "index"}),
}


@functools.cache
def made(form: str, scalar: bool) -> Any:
    """An environment of that form; made once, it goes through all cases."""
    name, options = MADE[form]
    if scalar:
        options = {key: value for key, value in options.items() if key != "autoreset_mode"}
        return gym.make(name, **options).unwrapped
    return gym.make_vec(name, num_envs=ENVS, **options).unwrapped


def shape_and_highest(form: str) -> tuple[tuple[int, ...], int]:
    """Of one action."""
    return {
        "bits": ((85,), 1),
        "cells": ((17,), 31),
        "blocks": ((17,), 1),
        "menu": ((), len(MENU) - 1),
        "twin": ((), len(made("twin", True).bandit.table) - 1),
    }[form]


def state(env: Any) -> str:
    """Where an environment stands, random numbers to come included."""
    contexts = env._contexts
    index = None if contexts is None else contexts.index.tolist()
    outcome = None if env._outcome is None else env._outcome.reward.tolist()
    return repr((env.bandit.state_dict(), index, np.asarray(env._waiting).tolist(), outcome))


def unchanged(env: Any, call: Callable[[], Any]) -> Any:
    """What the call gives; :class:`Lost` if it fails and has changed the environment."""
    before = state(env)
    try:
        return call()
    except NAMED_ERRORS as error:
        if state(env) != before:
            raise Lost(f"the environment's state, before {error!s:.200}") from error
        raise


# --- what must come of a step --------------------------------------------------------------------------


def mask_of(form: str, env: Any, actions: np.ndarray) -> np.ndarray:
    """Repaired masks ``(n, 17, 5)`` of actions ``(n, ...)``, without the code of forms and repair."""
    if form == "twin":
        return env.bandit.table.masks.numpy()[actions]
    keeps = np.array([cell.keeps_shape for cell in env.bandit.space.cells])
    if form == "cells":
        mask = (actions[..., None] // 2 ** np.arange(5) % 2).astype(bool)
    elif form == "blocks":
        mask = np.zeros((len(actions), 17, 5), bool)
        mask[..., 2] = actions.astype(bool) | ~keeps
        mask &= env.bandit.space.mobilenet_v2_mask().numpy()
    else:
        bits = np.array(MENU)[actions] if form == "menu" else actions
        mask = bits.astype(bool).reshape(-1, 17, 5)
    empty = ~keeps & ~mask.any(-1)
    mask[empty, paper.DEFAULT_MODULE] = True
    return mask


def expected_reward(form: str, env: Any, info: dict[str, np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Equation (2) by itself: from the table's file, the labels and what the network said."""
    bandit = env.bandit
    label = bandit.image_set.labels.numpy()[info["index"]]
    correct = info["prediction"] == label
    if form == "twin":
        arm = (bandit.table.masks.numpy()[None] == mask[:, None]).all((2, 3)).argmax(1)
        correct = np.asarray(bandit.table.correct("val"))[info["index"], arm]
        z = bandit.table.latency_ms.numpy()[arm]
    else:
        content = json.loads(Path(TABLE).read_text())
        z = (mask * np.array(content["modules"])).sum((1, 2)) + content["fixed"]
    upper, lower = info["upper_ms"], info["lower_ms"]
    middle, half = (upper + lower) / 2, (upper - lower) / 2
    quadratic = np.maximum(0, 1 - ((z - middle) / half) ** 2)
    if not np.allclose(z, info["latency_ms"], rtol=1e-12):
        raise Wrong(f"latency_ms: {info['latency_ms']}, by the file {z}")
    return np.where(correct, bandit.correct_reward * quadratic, bandit.wrong_reward)


def step(form: str, scalar: bool, action: Any, meant: np.ndarray | None) -> None:
    """Act; the answer must be that of ``meant``, and score's before the step."""
    env = made(form, scalar)
    if scalar or form == "menu" or env._contexts is None:
        env.reset(seed=0 if env._contexts is None else None)
    index = env._contexts.index.numpy()
    scored = unchanged(env, lambda: env.score(action)) if meant is not None else None
    _, reward, terminated, _, info = unchanged(env, lambda: env.step(action))
    info = info.get("final_info", info)
    info = {key: np.atleast_1d(value) for key, value in info.items() if key != "mask"} | {
        "mask": np.reshape(info["mask"], (-1, 17, 5))
    }
    actions = np.asarray(action if meant is None else meant).astype(np.int64)
    actions = actions[None] if scalar else actions
    mask = mask_of(form, env, actions)
    expected = expected_reward(form, env, info, mask)
    if not np.array_equal(info["mask"], mask) or not np.array_equal(info["index"], index):
        raise Wrong("another mask ran than was asked for, or on another image")
    if not np.allclose(reward, expected, atol=1e-12) or not np.all(terminated):
        raise Wrong(f"reward {reward}, equation (2) gives {expected}")
    if scored is not None and not np.array_equal(np.atleast_1d(scored.reward), np.atleast_1d(reward)):
        raise Wrong(f"step gives {reward}, score gave {scored.reward}")


def actions_case(rng: Rng) -> Case:
    """Right, in disguise, spoiled or odd."""
    form, scalar = pick(rng, list(MADE)), bool(rng.random() < 0.4)
    one, high = shape_and_highest(form)
    shape = one if scalar else (ENVS, *one)
    meant = np.asarray(rng.integers(0, min(high, 127), shape, endpoint=True))
    valid: bool | None = True
    action: Any
    kind = rng.random()
    if kind < 0.45:
        action = disguised(rng, meant)
    elif kind < 0.85:
        action, valid = spoiled(rng, meant, high), False
    else:
        action, valid = odd(rng), None
    where = f"{'env' if scalar else 'envs'}.step({told(action)}) of {form}"
    return Case(where, lambda: step(form, scalar, action, meant if valid else None), ("actions",), valid)


# --- options of a reset --------------------------------------------------------------------------------


def reset(env: Any, arguments: dict[str, Any], index: list[int] | None) -> None:
    """Reset; images asked for by number must be shown, and after a seed the same as after it before."""
    scalar = not hasattr(env, "num_envs")
    if env._contexts is None:
        env.reset(seed=0)
    _, info = unchanged(env, lambda: env.reset(**arguments))
    if index is not None and np.atleast_1d(info["index"]).tolist() != index:
        raise Wrong(f"shown are {info['index']}, asked for {index}")
    if arguments.get("seed") is not None and index is None:
        again = env.reset(seed=int(arguments["seed"]))[1]
        if not np.array_equal(again["index"], info["index"]):
            raise Wrong("the same seed gave other images")
    if not scalar and "reset_mask" not in (arguments.get("options") or {}) and not env._waiting.all():
        raise Wrong("not all images wait after a reset")


def options_case(rng: Rng) -> Case:
    """Seeds, indices and masks, right and wrong, one wrong thing at a time."""
    form, scalar = pick(rng, ("bits", "twin", "menu")), bool(rng.random() < 0.3)
    env = made(form, scalar)
    count, size = 1 if scalar else ENVS, len(env.bandit.image_set)
    index: list[int] | None = rng.integers(0, size, count).tolist()
    valid: bool | None = True
    arguments: dict[str, Any] = {}
    kind = int(rng.integers(8))
    if kind == 0:
        arguments, index = {"seed": pick(rng, (None, 0, 7, 2**40, np.int64(3), np.uint8(4)))}, None
    elif kind == 1:
        given = np.asarray(index).astype(pick(rng, ("i2", "u2", "i4", "i8", ">i8")))
        arguments["options"] = {"index": pick(rng, (given, given.tolist()))}
        if rng.random() < 0.3:
            arguments["seed"] = int(rng.integers(99))
    elif kind == 2:
        arguments["options"], index = pick(rng, ({}, None)), None
    elif kind == 3 and not scalar:
        marked = rng.random(count) < 0.5
        marked[0] = True
        arguments["options"] = {"reset_mask": pick(rng, (marked, marked.tolist()))}
        index = None
    elif kind == 4:
        bad = pick(rng, (-1, size, 2**63, 0.5, float("nan"), "3", None))
        wrong: Any = [bad, *index[1:]] if rng.random() < 0.7 else [*index, 0]  # type: ignore[index]
        arguments, valid = {"seed": 5, "options": {"index": wrong}}, False
    elif kind == 5:
        arguments["seed"], valid = pick(rng, (-1, 1.5, "1", [1], [1, 2], True, np.float32(2), 1j)), False
    elif kind == 6:
        wrong = pick(rng, (3, "index", [("index", index)], {"indices": index}, {3: 4}, {"seed": 1}, object()))
        arguments, valid = {"options": wrong}, False
    else:
        name = "index" if scalar else pick(rng, ("index", "reset_mask"))
        arguments, valid, index = {"seed": 5, "options": {name: odd(rng)}}, None, None
    names = ("options", "seed", "index", "reset_mask")
    where = f"reset({told(arguments)}) of {form}"
    return Case(where, lambda: reset(env, arguments, index), names, valid)
