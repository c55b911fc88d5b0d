"""Fuzzed keyword arguments of environments, agents, callbacks and spaces: one is changed at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from agents.blockdrop import BlockDrop
from agents.convnet_aig import ConvNetAIG
from agents.linucb import LinUCB
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.static import RandomAgent, StaticAgent
from instanas_env import BoundsSchedule, InstaNASEnv, InstaNASVectorEnv, MetaGraphUpdate, SearchSpace
from instanas_env.build import parse_search_space
from instanas_env.tabular import InstaNASTabularEnv, InstaNASTabularVectorEnv
from tests.tools.scratch import SCRATCH
from tests.tools.torture.fuzz_steps import MENU
from tests.tools.torture.values import INF, NAN, NO_COUNTS, NO_NUMBERS, Rng, odd, pick, told
from tests.tools.torture.verdicts import Case, Wrong

BOUNDS = {"upper": [1.0, "full"], "best": [1.0, "cheapest"]}


@dataclass(frozen=True)
class Argument:
    """Values of one keyword argument: some that must do, and some that must be refused."""

    good: tuple[Any, ...]
    bad: tuple[Any, ...] = ()


def counts(*good: Any) -> Argument:
    return Argument(good, tuple(value for value in NO_COUNTS if value is not None))


def numbers(*good: Any) -> Argument:
    return Argument(good, NO_NUMBERS)


def names(*good: Any) -> Argument:
    return Argument(good, ("", "lite2", 3, 0.5, True, b"lite", ["lite"], {"a": 1}, "x" * 5000, "\0"))


FLAG = Argument((True, False), ("False", 0, 1, "yes", 0.5, [], None))
ENV: dict[str, Argument] = {
    "augment": FLAG,
    "autocast": FLAG,
    "split": names("val", "test"),
    "dataset": names("embedded"),
    "data_dir": Argument((None, "/nowhere"), (3, 0.5, b"\0", ["a"], {}, "a" * 5000, "\0", True)),
    "search_space": Argument(
        ("lite", "lite@1", "lite@1.0"),
        (None, 3, "", "lite@", "lite@0", "lite@-1", "lite@nan", "lite@inf", "lite@1e9", "lite@50000", "@1",
         "cifr", ["lite"], "lite@1@1", b"lite", "lite@0x1"),
    ),
    "meta_graph": Argument(("random",), (3, "/nowhere", "", "/tmp", b"x", [1], "\0", 0.5, True, {})),
    "latency_table": Argument((SCRATCH["latency_table"],), (3, "/nowhere", "", "/tmp", [1], "\0", {})),
    "cost": names("latency", "flops", "params"),
    "order": names("shuffled", "sequential"),
    "device": Argument(("cpu",), ("hpu", "meta", "cuda:99", "", 3, None, "x" * 300, ["cpu"], b"cpu")),
    "correct_reward": numbers(1, 2.5, np.float32(1), 0),
    "wrong_reward": numbers(-1, 0, 0.5, np.int64(-2)),
    "bounds": Argument(
        (None, BOUNDS, {**BOUNDS, "epochs": 3}, {**BOUNDS, "upper": [[1, "full"], [0.9, "full"]]}),
        ({}, 3, "full", [], {"upper": 1}, {**BOUNDS, "epochs": 0}, {**BOUNDS, "epochs": 10**400},
         {**BOUNDS, "epochs": 1.5}, {**BOUNDS, "lower": [0.1, "full"]}, {**BOUNDS, "upper": [NAN, "full"]},
         {**BOUNDS, "upper": [10**400, "full"]},
         {**BOUNDS, "upper": ["1", "full"]}, {**BOUNDS, "more": 1}, {**BOUNDS, "upper": [[[]], "full"]},
         {"upper": BOUNDS["upper"]}, {**BOUNDS, "upper": [1e308, "full"]}, 
         {**BOUNDS, "upper": [True, "full"]}, {**BOUNDS, "upper": [0, "full"]}, {**BOUNDS, "upper": [1,
         "fool"]}),
    ),
    "shard": Argument(
        ((0, 1), [1, 2], (0, 500)),
        ((0, 10**9), (1, 1), (-1, 2), (0, 0), 3, (0,), "01", (0.5, 1), (NAN, 2), None, (0, 1, 2), ("0", "1")),
    ),
    "actions": Argument(
        ("bits", "multi_discrete", "cells", "blocks", MENU),
        (None, 3, "", "bit", "/nowhere", [], [[]], [[0] * 84], [[2] * 85], [[NAN] * 85], {}, [0] * 85, "\0"),
    ),
    "layout": names("CHW", "HWC"),
    "observation": names("image", "features"),
    "render_mode": Argument((None, "rgb_array"), ("human", 3, "", ["rgb_array"], b"rgb_array", True)),
}  # fmt: skip
TWIN = {
    name: ENV[name] for name in ("split", "correct_reward", "wrong_reward", "order", "layout", "render_mode")
}
TWIN["observation"] = names("image", "features", "index")
TWIN["table"] = Argument((None,), (3, "/nowhere", "", "/tmp", [1], "\0", {}, SCRATCH["latency_table"]))
VECTOR = {
    "num_envs": counts(1, 2, np.int64(2)),
    "autoreset_mode": Argument(
        ("SameStep", "NextStep", "Disabled"), ("same", 3, "", ["SameStep"], True, {}, NAN)
    ),
}
UPDATE = {
    "learning_rate": numbers(0.1, 1),
    "final_learning_rate": numbers(0.01, 0),
    "epochs": counts(1, 100),
    "frozen_epochs": counts(0, 3),
    "batch_size": Argument((2, 256), (*NO_COUNTS, 0, 1)),
    "momentum": numbers(0.9, 0.5),
    "weight_decay": numbers(0, 1e-4),
    "shuffle": Argument((True, False, 3), ("yes", -1, 0.5, None, [], NAN)),
    "seed": counts(0, 2**40),
    "teacher": Argument((None,), (3, "teacher", [], NAN)),
}
RATE = numbers(1e-3, 0.1)
AGENTS: dict[type, dict[str, Argument]] = {
    SelfCriticalReinforce: {
        "learning_rate": RATE,
        "constant_rate": numbers(0, 0.5, 1),
        "samples_per_image": counts(1, 2),
        "naming_coefficient": numbers(0, 0.3),
        "horizon": counts(None, 100),
        "alpha": Argument(((0.8, 0.95),), ((0.2, 2), (NAN, 1), 3, "ab", (0.8,), None, ("a", "b"), (1, 1, 1))),
        "entropy_coefficient": Argument((0.1, (0.1, 0.0)), (NAN, INF, "a", None, (1,), (NAN, 0), [[1]], {})),
        "log_probability_under": names("p", "p_prime"),
        "seed": counts(0, 3),
    },
    RewardRegression: {
        "learning_rate": RATE,
        "latencies": Argument(((0.1, 1.0), None), ((NAN, 1), (1, INF), 3, "ab", (0.1,), ("a", "b"))),
        "random_timesteps": counts(0, 10),
        "anneal_timesteps": counts(None, 10),
        "seed": counts(0, 3),
    },
    BlockDrop: {
        "learning_rate": RATE,
        "reward": names("blocks", "environment"),
        "gamma": numbers(5.0, 0),
        "curriculum_timesteps": counts(None, 10),
        "seed": counts(0, 3),
    },
    ConvNetAIG: {"learning_rate": RATE, "seed": counts(0, 3)},
    LinUCB: {"alpha": numbers(0.5, 1), "seed": counts(0, 3)},
}  # fmt: skip


@functools.cache
def envs_for_agents(twin: bool) -> gym.vector.VectorEnv:
    if twin:
        return gym.make_vec("InstaNASTabular-v1", num_envs=2, split="val", observation="features")
    return gym.make_vec("InstaNAS-v1", num_envs=2, **SCRATCH)


def use(env: Any) -> None:
    """An environment that was made must give finite rewards."""
    env.reset(seed=0)
    env.action_space.seed(0)
    reward = env.step(env.action_space.sample())[1]
    if not np.isfinite(reward).all():
        raise Wrong(f"reward {reward}")
    if env.unwrapped.render_mode is not None:
        env.render()


Make = Callable[[dict[str, Any]], Any]


def _static(given: dict[str, Any]) -> Any:
    return StaticAgent(SearchSpace.preset("lite"), **given)


def _random(given: dict[str, Any]) -> Any:
    agent = RandomAgent(SearchSpace.preset("lite"), **given)
    return agent.masks(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


def _bounds(given: dict[str, Any]) -> Any:
    return BoundsSchedule.from_config(given["bounds"])


MASK = Argument(
    ([0] * 85, [1] * 85, np.ones((17, 5))),
    ([2] * 85, [0] * 84, NAN, [NAN] * 85, None, "0" * 85, [], [[0] * 85], {}, 1j),
)
KEEP = Argument((0, 0.5, 1), (*NO_NUMBERS, 1.5, -0.1))
SPACE = Argument(("cifar", "lite@0.5", "imagenet"), ENV["search_space"].bad)
SCHEDULE = Argument(ENV["bounds"].good[1:], ENV["bounds"].bad[:-4])
SMALL: dict[str, tuple[Make, dict[str, Argument]]] = {
    "MetaGraphUpdate": (lambda given: MetaGraphUpdate(**given), UPDATE),
    "StaticAgent": (_static, {"mask": MASK}),
    "RandomAgent": (_random, {"keep": KEEP, "seed": counts(0, 5)}),
    "parse_search_space": (lambda given: parse_search_space(given["search_space"]), {"search_space": SPACE}),
    "BoundsSchedule.from_config": (_bounds, {"bounds": SCHEDULE}),
}


def _case(rng: Rng, what: str, make: Make, known: dict[str, Argument], base: dict[str, Any]) -> Case:
    """One argument good, bad, odd or unknown; the others left as they are."""
    name = pick(rng, list(known))
    kind = rng.random()
    valid: bool | None
    if kind < 0.25:
        value, valid = pick(rng, known[name].good), True
    elif kind < 0.75:
        value, valid = pick(rng, known[name].bad), False
    else:
        value, valid = odd(rng), None
    given = {**base, name: value}
    if kind > 0.97 and "." not in what and what != "parse_search_space":
        given, valid, name = {**base, "colour": 3}, False, "colour"
    return Case(
        f"{what}({name}={told(value)})",
        lambda: make(given),
        (name, *([value] if isinstance(value, str) and value else [])),
        valid,
    )


def keywords_case(rng: Rng) -> Case:
    """Small things often, environments and agents, which take longer to make, less often."""
    kind = rng.random()
    if kind < 0.6:
        what = pick(rng, list(SMALL))
        make, known = SMALL[what]
        return _case(rng, what, make, known, {})
    if kind < 0.7:
        agent = pick(rng, list(AGENTS))
        twin = agent is LinUCB
        return _case(
            rng, agent.__name__, lambda given: agent(envs_for_agents(twin), **given), AGENTS[agent], {}
        )
    twin = bool(rng.random() < 0.3)
    known, base = (TWIN, {"split": "val"}) if twin else (ENV, SCRATCH)
    # The classes themselves: gym.make refuses some things before they come to us.
    kind_of_env: Any = (
        (InstaNASTabularEnv, InstaNASTabularVectorEnv) if twin else (InstaNASEnv, InstaNASVectorEnv)
    )[vector := int(rng.integers(2))]
    known, base = ({**known, **VECTOR}, {**base, "num_envs": 2}) if vector else (known, base)
    return _case(rng, kind_of_env.__name__, lambda given: use(kind_of_env(**given)), known, base)
