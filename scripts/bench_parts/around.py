"""What `instanas bench` measures around the meta-graph: environment, learners, children."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import instanas_env  # noqa: F401  (registers InstaNAS-v1)
from agents.controller import Controller
from instanas_env.deploy.profiling import profile_table
from instanas_env.deploy.timing import one_thread
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.networks.modules import fold_batch_norm
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from scripts.bench_parts.ratios import Actions, Figure, Options, figure, interleaved, ratio


def environment(options: Options) -> Iterator[Figure]:
    """The environment around the meta-graph, space "lite", half masks, 256 environments."""
    count = 16 if options.quick else 256
    envs = gym.make_vec("InstaNAS-v1", num_envs=count)
    envs.reset(seed=options.seed)
    inner: Any = envs.unwrapped
    masks = inner.bandit.space.random_masks(count, 0.5, generator_for(options.seed))
    actions = masks.flatten(1).int().numpy()
    scalars = [gym.make("InstaNAS-v1") for _ in range(count)]
    for i, scalar in enumerate(scalars):
        scalar.reset(seed=i)

    def one_by_one() -> None:
        for scalar, action in zip(scalars, actions, strict=True):
            scalar.step(action)
            scalar.reset()

    calls: Actions = {
        "step": partial(envs.step, actions),
        "one": partial(inner.score, actions),
        "two": partial(inner.score, np.stack([actions, actions])),
        "scalar": one_by_one,
    }
    seconds = interleaved(calls, options.rounds)
    outside = outside_the_forward(envs, actions, 4 * options.rounds)
    yield figure("lite: steps of an environment/s", [count / s for s in seconds["step"]])
    yield figure("lite: share of a step outside the forward pass", outside, "<= 0.05")
    yield ratio("lite: scoring two actions over one", seconds["two"], seconds["one"], "<= 1.9")
    yield ratio(f"lite: {count} scalar envs over the vector env", seconds["scalar"], seconds["step"], ">= 10")


def twin(options: Options) -> Iterator[Figure]:
    """The tabular twin: steps a second of its vector form, 1,024 environments, each kind of observation."""
    count, steps = 1024, (5 if options.quick else 100)

    def stepping(observation: str) -> Callable[[], Any]:
        """Takes all steps in environments with one kind of observation."""
        envs = gym.make_vec("InstaNASTabular-v1", num_envs=count, observation=observation)
        envs.reset(seed=options.seed)
        envs.action_space.seed(options.seed)
        arms = envs.action_space.sample()
        return lambda: [envs.step(arms) for _ in range(steps)]

    goals = {"index": ">= 1e6", "features": ">= 1e6", "image": ""}
    seconds = interleaved({name: stepping(name) for name in goals}, options.rounds)
    for name, goal in goals.items():
        yield figure(f"tabular twin, {name}: steps/s", [steps * count / s for s in seconds[name]], goal)


def outside_the_forward(envs: gym.vector.VectorEnv, actions: np.ndarray, steps: int) -> list[float]:
    """Share of each step that is not the meta-graph's forward pass, both timed in that same step."""
    folded: torch.nn.Module = envs.unwrapped.bandit.folded  # type: ignore[attr-defined]
    marks: list[float] = []

    def mark(*_: Any) -> None:
        marks.append(time.perf_counter())

    with folded.register_forward_pre_hook(mark), folded.register_forward_hook(mark):
        for _ in range(steps):
            mark()
            envs.step(actions)
            mark()
    start, before, after, end = np.reshape(marks, (steps, 4)).T
    return (1 - (after - before) / (end - start)).tolist()


def learning(options: Options) -> Iterator[Figure]:
    """PPO of Stable-Baselines3 for one rollout and one pass over it: over the adapter, over scalar envs."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor

    from agents.sb3 import ControllerFeatures, NativeVecEnv

    count, steps = (8 if options.quick else 256), 4

    def rollout(envs: VecEnv) -> Callable[[], Any]:
        """One rollout and one pass of PPO over it."""
        policy = {"features_extractor_class": ControllerFeatures, "normalize_images": False}
        size: dict[str, Any] = {"n_steps": steps, "batch_size": count, "n_epochs": 1}
        model: Any = PPO("CnnPolicy", VecMonitor(envs), seed=options.seed, policy_kwargs=policy, **size)
        return partial(model.learn, steps * count)

    actions: Actions = {
        "native": rollout(NativeVecEnv(gym.make_vec("InstaNAS-v1", num_envs=count))),
        "dummy": rollout(DummyVecEnv([partial(gym.make, "InstaNAS-v1")] * count)),
    }
    seconds = interleaved(actions, min(options.rounds, 3))
    yield figure("lite: PPO, steps of an environment/s", [steps * count / s for s in seconds["native"]])
    name = f"lite: PPO, {count} envs in DummyVecEnv over the adapter"
    yield ratio(name, seconds["dummy"], seconds["native"], ">= 5")


def children(options: Options) -> Iterator[Figure]:
    """Separate networks at batch 1, one thread: the table's estimates, the controller, onnxruntime."""
    space, generator = SearchSpace.preset("cifar"), generator_for(options.seed)
    meta_graph = MetaGraph(space, 10, generator).eval()
    fitted, count, repetitions = (130, 12, 2) if options.quick else (400, 200, 25)
    controller = fold_batch_norm(Controller(space))
    table, quality = profile_table(meta_graph, controller, generator, fitted, count, repetitions)
    yield figure("table against real children: correlation", [quality.correlation], ">= 0.99")
    yield figure("table against real children: median error", [quality.median_error], "<= 0.05")
    share = table.controller / table.reference("mobilenet_v2")
    yield figure("controller over the MobileNetV2 path", [share])

    from instanas_env.deploy.onnx_graph import to_onnx
    from instanas_env.deploy.runtime import OnnxNetwork

    for name in ("cifar", "lite"):
        space = SearchSpace.preset(name)
        child = MetaGraph(space, 10, generator).eval().child(space.mobilenet_v2_mask())
        image = torch.randn(1, 3, 32, 32, generator=generator)
        actions: Actions = {
            "eager": partial(child, image),
            "onnx": partial(OnnxNetwork(to_onnx(child, image)), image),
        }
        with one_thread(), torch.inference_mode():
            seconds = interleaved(actions, 10 * repetitions)
        yield figure(f"{name}: ms of the MobileNetV2 path in onnxruntime", [1e3 * s for s in seconds["onnx"]])
        yield ratio(f"{name}: eager child over onnxruntime", seconds["eager"], seconds["onnx"], ">= 1.5")
