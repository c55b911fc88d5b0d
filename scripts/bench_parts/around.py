"""What `instanas bench` measures around the meta-graph: memory, environment, learners, children."""

from __future__ import annotations

import subprocess
import sys
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


def memory(options: Options) -> Iterator[Figure]:
    """Resident memory, in a process of its own: what 50,000 images take, what 100,000 steps add.

    The latter asks for a leak: its masks are eight batches in turn. With new ones oneDNN meets sub-batches
    of sizes it has no kernels for yet and keeps those it compiles: 40 MB between 25,000 and 50,000 steps,
    12 MB in the next 375,000, until it has met all.
    """
    steps = 2_000 if options.quick else 100_000
    command = [sys.executable, "-c", MEMORY, str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    made, grown = map(float, done.stdout.split())
    yield figure("MB of an environment with 50,000 images of 32 px", [made], "<= 600")
    yield figure(f"MB that {steps:,} steps add", [grown], "flat")


MEMORY = """
import resource, sys, torch
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
torch.set_num_threads(1)
imported = resident()
import gymnasium as gym, instanas_env
from dataclasses import replace
envs = gym.make_vec("InstaNAS-v1", num_envs=250)
bandit = envs.unwrapped.bandit
images = torch.randint(256, (50_000, 3, 32, 32), dtype=torch.uint8)
bandit.image_set = replace(bandit.image_set, images=images, labels=torch.arange(len(images)) % 10)
del images
envs.reset(seed=0)
envs.action_space.seed(0)
steps = int(sys.argv[1])
for _ in range(steps // 1000):
    envs.step(envs.action_space.sample())
made = resident()
batches = [envs.action_space.sample() for _ in range(8)]
def settled():  # what is in use only now and then does not count
    return min(resident() for _ in map(envs.step, batches))
settled()  # from here on nothing is new
before = settled()
for step in range(steps // 250):
    envs.step(batches[step % 8])
print(made - imported, settled() - before)
"""


def kept_memory(options: Options) -> Iterator[Figure]:
    """Training MobileNetV2 at width 0.5 where freed memory goes back to the kernel, over where it is kept.

    In a process each, since what the C library was told cannot be taken back.
    """
    batch = 16 if options.quick else 128

    def seconds(how: str) -> float:
        """Of a step, the median of five after two."""
        command = [sys.executable, "-c", TRAINING, how, str(batch), str(options.threads)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    found = [(seconds("given back"), seconds("kept")) for _ in range(options.rounds)]
    given_back, kept = map(list, zip(*found, strict=True))
    yield figure("images/s, training MobileNetV2 at cifar@0.5", [batch / s for s in kept])
    yield ratio("training: freed memory given back over kept", given_back, kept)


TRAINING = """
import sys, time, torch
from statistics import median
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.training.allocator import keep_freed_memory
from instanas_env.training.epoch import sgd
how, batch, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
if how == "kept":
    keep_freed_memory()
network = MetaGraph(SearchSpace.preset("cifar", 0.5).only(2), 10).train()
optimizer = sgd(network, 1e-3, 0.9, 0.0)
images, labels = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
masks = network.space.full_mask().expand(batch, -1, -1)
seconds = []
for _ in range(7):
    start = time.perf_counter()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(images, masks), labels).backward()
    optimizer.step()
    seconds.append(time.perf_counter() - start)
print(median(seconds[2:]))
"""
