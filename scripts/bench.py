"""Speed, as ratios on this machine in one run: medians of interleaved rounds, with their quartiles.

    python -m scripts.bench --out runs/bench.json          # several minutes; leave the machine alone
    python -m scripts.bench --quick                        # a minute's look, smaller batches

Times are of a space of width 1 at 32 px ("cifar") unless the row says "lite". Weights are random: they do
not change the time.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import gymnasium as gym
import torch
import torch.nn.functional as F
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

import instanas_env  # noqa: F401  (registers InstaNAS-v0)
from agents.controller import Controller
from instanas_env.counting import count_macs
from instanas_env.meta_graph import MetaGraph
from instanas_env.profiling import (
    calibrate,
    compare_with_real,
    fold_for_timing,
    one_thread,
    profile_modules,
)
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import save_json
from instanas_env.training import sgd
from scripts.dense import DenseMetaGraph
from scripts.run_directory import machine

Actions = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    out: Path | None = None
    """JSON file for the figures."""
    quick: bool = False
    """Smaller batches and fewer rounds."""
    rounds: int = 5
    threads: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Figure:
    """A measured ratio with the quartiles of its rounds. ``goal`` is "at least" or "at most" a number."""

    name: str
    value: float
    low: float
    high: float
    goal: str = ""


def interleaved(actions: Actions, rounds: int) -> dict[str, list[float]]:
    """Seconds of each action in each round; all take turns, so that all see the same machine."""
    for action in actions.values():
        action()
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def figure(name: str, values: list[float], goal: str = "") -> Figure:
    """Median and quartiles of one value a round."""
    low, _, high = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return Figure(name, median(values), low, high, goal)


def ratio(name: str, above: list[float], below: list[float], goal: str = "") -> Figure:
    """The ratio of two times, taken round by round."""
    return figure(name, [a / b for a, b in zip(above, below, strict=True)], goal)


def density_masks(space: SearchSpace, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Masks ``(count, cells, modules)`` of the four kinds the issue of speed is judged by."""
    return {
        "all": space.full_mask().expand(count, -1, -1),
        "half": space.random_masks(count, 0.5, generator),
        "fifth": space.random_masks(count, 0.2, generator),
        "mobilenet_v2": space.mobilenet_v2_mask().expand(count, -1, -1),
    }


@torch.inference_mode()
def evaluation(options: Options) -> Iterator[Figure]:
    """The forward pass: against the released design, against the mask's share, against the machine."""
    space, batch = SearchSpace.preset("cifar"), 32 if options.quick else 256
    generator = generator_for(options.seed)
    meta_graph = MetaGraph(space, 10).eval()
    images = torch.randn(batch, 3, 32, 32, generator=generator)
    masks = density_masks(space, batch, generator)
    dense, folded = DenseMetaGraph(meta_graph), meta_graph.folded()
    convolution = torch.nn.Conv2d(256, 256, 1, bias=False).to(memory_format=torch.channels_last)
    maps = torch.randn(64, 256, 32, 32).to(memory_format=torch.channels_last)
    actions: Actions = {"dense": partial(dense, images, masks["half"]), "1x1": partial(convolution, maps)}
    actions |= {name: partial(folded, images, mask) for name, mask in masks.items()}
    seconds = interleaved(actions, options.rounds)
    for name, goal in {"all": 3, "half": 8, "fifth": 14, "mobilenet_v2": 10}.items():
        yield figure(f"images/s, {name}", [batch / s for s in seconds[name]])
        yield ratio(f"dense NCHW over {name}", seconds["dense"], seconds[name], f">= {goal}")
    yield ratio("half over all", seconds["half"], seconds["all"], "<= 0.52")
    yield ratio("fifth over all", seconds["fifth"], seconds["all"], "<= 0.22")
    macs = 1e6 * sum(count_macs(space, 10).lookup(masks["half"]).tolist())
    speed = [macs / s for s in seconds["half"]]
    peak = [256 * 256 * 32 * 32 * 64 / s for s in seconds["1x1"]]
    yield figure("GFLOP/s, 1x1 convolution", [2e-9 * p for p in peak])
    yield ratio("FLOP/s at half over 1x1 convolution's", speed, peak, ">= 0.6")


def batch_sizes(options: Options) -> Iterator[Figure]:
    """Time per image from small batches to large ones, half masks."""
    space, generator = SearchSpace.preset("cifar"), generator_for(options.seed)
    folded = MetaGraph(space, 10).eval().folded()
    sizes = (16, 64) if options.quick else (64, 256, 1024)

    def forward(size: int) -> Callable[[], Any]:
        images = torch.randn(size, 3, 32, 32, generator=generator)
        masks = space.random_masks(size, 0.5, generator)
        return torch.inference_mode()(lambda: folded(images, masks))

    seconds = interleaved({str(size): forward(size) for size in sizes}, options.rounds)
    for size in sizes[1:]:
        first = [s * size / sizes[0] for s in seconds[str(sizes[0])]]
        yield ratio(f"per image, batch {size} over {sizes[0]}", seconds[str(size)], first, "0.9 to 1.1")


def training(options: Options) -> Iterator[Figure]:
    """A step of forward, backward and SGD at width 0.5, against dense channels_last."""
    space, batch = SearchSpace.preset("cifar", 0.5), 16 if options.quick else 128
    generator = generator_for(options.seed)
    images = torch.randn(batch, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (batch,), generator=generator)
    meta_graph = MetaGraph(space, 10).train()
    dense = DenseMetaGraph(meta_graph, torch.channels_last)
    per_image = space.random_masks(batch, 0.5, generator)
    per_batch = space.random_masks(1, 0.5, generator).expand(batch, -1, -1)

    def step(network: torch.nn.Module, masks: Tensor) -> Callable[[], None]:
        optimizer = sgd(network, 1e-3, 0.9, 0.0)

        def run() -> None:
            optimizer.zero_grad()
            F.cross_entropy(network(images, masks), labels).backward()
            optimizer.step()

        return run

    steps: Actions = {
        "dense": step(dense, per_image),
        "batch": step(meta_graph, per_batch),
        "image": step(meta_graph, per_image),
    }
    seconds = interleaved(steps, options.rounds)
    yield ratio("training: dense over one mask a batch", seconds["dense"], seconds["batch"], ">= 2.5")
    yield ratio("training: dense over one mask an image", seconds["dense"], seconds["image"], ">= 2.0")


def environment(options: Options) -> Iterator[Figure]:
    """The environment around the meta-graph, space "lite", half masks, 256 environments."""
    count = 16 if options.quick else 256
    envs = gym.make_vec("InstaNAS-v0", num_envs=count)
    envs.reset(seed=options.seed)
    inner: Any = envs.unwrapped
    space, generator = inner.bandit.space, generator_for(options.seed)
    actions = space.random_masks(count, 0.5, generator).flatten(1).int().numpy()
    pair = torch.from_numpy(actions).repeat(2, 1, 1).numpy()
    folded, bandit = inner.bandit.meta_graph.folded(), inner.bandit
    images = bandit.image_set.normalize(torch.from_numpy(inner.observation()))
    masks = space.masks_from_actions(actions)
    scalars = [gym.make("InstaNAS-v0") for _ in range(count)]
    for i, scalar in enumerate(scalars):
        scalar.reset(seed=i)

    def one_by_one() -> None:
        for scalar, action in zip(scalars, actions, strict=True):
            scalar.step(action)
            scalar.reset()

    seconds = interleaved(
        {
            "step": lambda: envs.step(actions),
            "forward": torch.inference_mode()(lambda: folded(images, masks)),
            "one": lambda: inner.score(actions),
            "two": lambda: inner.score(pair),
            "scalar": one_by_one,
        },
        options.rounds,
    )
    outside = [1 - f / s for f, s in zip(seconds["forward"], seconds["step"], strict=True)]
    yield figure("lite: steps of an environment/s", [count / s for s in seconds["step"]])
    yield figure("lite: share of a step outside the forward pass", outside, "<= 0.05")
    yield ratio("lite: scoring two actions over one", seconds["two"], seconds["one"], "<= 1.9")
    yield ratio(f"lite: {count} scalar envs over the vector env", seconds["scalar"], seconds["step"], ">= 10")


def learning(options: Options) -> Iterator[Figure]:
    """PPO of Stable-Baselines3 for one rollout and one pass over it: over the adapter, over scalar envs."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor

    from agents.sb3 import ControllerFeatures, NativeVecEnv

    count, steps = (8 if options.quick else 256), 4

    def rollout(envs: VecEnv) -> Callable[[], Any]:
        policy = {"features_extractor_class": ControllerFeatures, "normalize_images": False}
        size: dict[str, Any] = {"n_steps": steps, "batch_size": count, "n_epochs": 1}
        model: Any = PPO("CnnPolicy", VecMonitor(envs), seed=options.seed, policy_kwargs=policy, **size)
        return partial(model.learn, steps * count)

    actions: Actions = {
        "native": rollout(NativeVecEnv(gym.make_vec("InstaNAS-v0", num_envs=count))),
        "dummy": rollout(DummyVecEnv([partial(gym.make, "InstaNAS-v0")] * count)),
    }
    seconds = interleaved(actions, min(options.rounds, 3))
    yield figure("lite: PPO, steps of an environment/s", [steps * count / s for s in seconds["native"]])
    name = f"lite: PPO, {count} envs in DummyVecEnv over the adapter"
    yield ratio(name, seconds["dummy"], seconds["native"], ">= 5")


def children(options: Options) -> Iterator[Figure]:
    """Separate networks at batch 1, one thread: the table's estimates, the controller, onnxruntime."""
    space, generator = SearchSpace.preset("cifar"), generator_for(options.seed)
    meta_graph = MetaGraph(space, 10, generator).eval()
    repetitions, count = (5, 12) if options.quick else (40, 200)
    table = profile_modules(meta_graph, fold_for_timing(Controller(space)), generator, repetitions)
    overhead = compare_with_real(table, meta_graph, count // 4, generator, repetitions // 3).overhead
    yield figure("real children over the sum of their modules", [overhead])
    table = calibrate(table, overhead)
    quality = compare_with_real(table, meta_graph, count, generator, repetitions // 3)
    yield figure("table against real children: correlation", [quality.correlation], ">= 0.99")
    yield figure("table against real children: median error", [quality.median_error], "<= 0.05")
    share = table.controller / table.reference("mobilenet_v2")
    yield figure("controller over the MobileNetV2 path", [share], "<= 0.05")

    from instanas_env.onnx_network import OnnxNetwork, to_onnx

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
    """Resident memory, in a process of its own: what 50,000 images take, what 100,000 steps add."""
    steps = 2_000 if options.quick else 100_000
    code = MEMORY.format(steps=steps)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    made, grown = map(float, done.stdout.split())
    yield figure("MB of an environment with 50,000 images of 32 px", [made], "<= 600")
    yield figure(f"MB that {steps:,} steps add", [grown], "flat")


MEMORY = """
import os, resource, torch
def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * resource.getpagesize() / 2**20
torch.set_num_threads(1)
imported = resident()
import gymnasium as gym, instanas_env
from dataclasses import replace
envs = gym.make_vec("InstaNAS-v0", num_envs=250)
bandit = envs.unwrapped.bandit
few = bandit.image_set
count = 50_000
bandit.image_set = replace(
    few,
    images=torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8),
    labels=torch.arange(count) % 10,
)
envs.reset(seed=0)
envs.action_space.seed(0)
for _ in range({steps} // 1000):  # fills oneDNN's cache of kernels
    envs.step(envs.action_space.sample())
made = resident()
for _ in range({steps} // 250):
    envs.step(envs.action_space.sample())
print(made - imported, resident() - made)
"""


def print_figures(figures: list[Figure]) -> None:
    """A table on the terminal."""
    table = Table("figure", "median", "quartiles", "goal")
    for f in figures:
        table.add_row(f.name, f"{f.value:.3g}", f"{f.low:.3g} to {f.high:.3g}", f.goal)
    Console(width=110).print(table)


def main(options: Options) -> None:
    """Measure everything, print, write."""
    torch.set_num_threads(options.threads)
    figures: list[Figure] = []
    for part in (evaluation, batch_sizes, training, environment, learning, children, memory):
        with Console().status(part.__doc__ or ""):
            figures += part(options)
    print_figures(figures)
    if options.out is not None:
        chosen = {"quick": options.quick, "rounds": options.rounds, "threads": options.threads}
        record = {"options": chosen, "machine": machine(), "figures": [asdict(f) for f in figures]}
        save_json(options.out, record)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
