"""What InstaNAS is about, in five minutes on the embedded images: each image gets the network it needs.

    instanas demo

On the shipped meta-graph, frozen, a one-shot search looks for the best fixed mask, two controllers learn, and
everything is measured on the 1,000 test images, beside a controller that comes with the package. Writes
``images.png`` and ``images.gif``, three images that get little and three that get much, and ``demo.json``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from agents.evaluation.awareness import measure_awareness
from agents.evaluation.clock import time_policy
from agents.files import load_agent
from agents.reinforce import SelfCriticalReinforce
from agents.static import StaticAgent
from instanas_env import paper
from instanas_env.bandit import Contexts, InstanceBandit, Outcome
from instanas_env.build import build_bandit, shipped
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.render import frames
from instanas_env.storage import save_json, write_atomic
from instanas_env.training.run_directory import FREE, RunDirectory
from scripts import benchmark
from scripts.begin import begin
from scripts.comparison import ranking
from scripts.comparison.contest import Budget, Contest

NAMES = {
    "fixed": "best fixed mask",
    "regression": "regression, learnt here",
    "reinforce": "REINFORCE, learnt here",
}


@dataclass(frozen=True)
class Options:
    """How long to learn, and where to write."""

    out: Path = Path("runs/demo")
    masks: int = 60
    """Fixed masks that the one-shot search ranks."""
    menu: int = 24
    """So many of these the regression controller chooses from."""
    steps: int = 160_000
    """Answers that each of the two learns from, about any of the 4,000 training images."""
    stopwatch_images: int = 200
    """Test images that the one file with everything in it is timed on."""
    seed: int = 0
    device: str = "auto"
    """Where the networks compute: cpu, cuda, cuda:1; auto is CUDA where there is one, else the CPU."""
    threads: int = 1
    """Modules are so small here that a second thread slows every one of them down."""


def alone(test: InstanceBandit) -> dict[str, Any]:
    """MobileNetV2 of the same width, trained alone."""
    network = MetaGraph.load(shipped("mobilenet_v2.safetensors")).to(test.device)
    table = test.latency_table.only(paper.MOBILENET_V2_MODULE)
    bandit = InstanceBandit(network, test.image_set, table)
    figures, _ = measure_awareness(bandit, StaticAgent(network.space, network.space.full_mask()))
    return vars(figures)


def rows(options: Options, test: InstanceBandit) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and figures of every policy on the test images, as soon as they are there."""
    yield "MobileNetV2 alone", alone(test)
    settings = benchmark.Options(
        out=options.out,
        policies=tuple(NAMES),
        steps=options.steps,
        masks=options.masks,
        menu=options.menu,
        gradient_steps=20,
        seeds=1,
        seed=options.seed,
    )
    run = RunDirectory(options.out, settings, free=FREE)
    budget = Budget(settings.steps, settings.masks, settings.menu, settings.gradient_steps)
    given = benchmark.environment(settings)
    contest = Contest(options.out, given, budget, options.seed, progress=True, device=str(test.device))
    run.bind(val=contest.val.image_set, test=contest.test.image_set)
    run.claim()
    for row in ranking.rows(contest, settings.policies, (options.seed,)):
        yield NAMES[row["policy"]], row["test"]
    yield "REINFORCE, shipped", vars(measure_awareness(*reference())[0])


def reference() -> tuple[InstanceBandit, SelfCriticalReinforce]:
    """The shipped controller, and the test split on the meta-graph beside it."""
    bandit = build_bandit(split="test", meta_graph=str(shipped("reference/meta_graph.safetensors")))
    agent = load_agent(shipped("reference/controller.safetensors"))
    assert isinstance(agent, SelfCriticalReinforce)
    return bandit, agent


def line(name: str, row: dict[str, Any]) -> list[str]:
    """A policy's cells of the table."""
    several = row["networks"] > 1
    lost = 100 * (row["accuracy"] - row["shuffled_accuracy"])
    named = row["names_accuracy"]
    return [
        name,
        f"{100 * row['accuracy']:.1f}",
        f"{row['latency_ms']:.3f}",
        f"{row['networks']:,}",
        f"{lost:.1f}" if several else "",
        "" if named is None else f"{100 * named:.1f}",
    ]


def show(table_rows: list[list[str]], console: Console) -> None:
    """The whole table."""
    table = Table(title="1,000 test images of Fashion-MNIST")
    for number, head in enumerate(("policy", "right, %", "ms", "networks", "lost shuffled", "names, %")):
        table.add_column(head, justify="left" if number == 0 else "right")
    for cells in table_rows:
        table.add_row(*cells)
    console.print(table)
    console.print(
        "ms: deployed, with the controller's. lost shuffled: points of accuracy that the same masks lose when"
        " other images get them. names: what the controller gets right by itself. REINFORCE, shipped: learnt"
        " from 200,000 images of Fashion-MNIST's whole training split."
    )


def easy_and_hard(bandit: InstanceBandit, outcome: Outcome, path: Path) -> list[str]:
    """Write a picture of three images that got least and three that got most; a line about each."""
    order = np.argsort(outcome.latency_ms, kind="stable")
    chosen = torch.from_numpy(np.concatenate([order[:3], order[-3:]]).copy())
    contexts = Contexts(chosen, bandit.image_set.images[chosen])
    masks = outcome.mask[chosen.numpy()].reshape(len(chosen), -1)
    pictures = frames(bandit, contexts, bandit.score(contexts, masks))
    write_picture(path, [np.concatenate(pictures)])
    write_picture(path.with_suffix(".gif"), pictures)
    classes, lines = bandit.image_set.classes, []
    for i in chosen.tolist():
        modules, name = int(outcome.mask[i].sum()), classes[outcome.label[i]]
        answer = "right" if outcome.correct[i] else f"wrong, {classes[outcome.prediction[i]]}"
        lines.append(f"  {name:12s} {modules:2d} modules  {outcome.latency_ms[i]:.3f} ms  {answer}")
    return lines


def write_picture(path: Path, pictures: Sequence[np.ndarray]) -> None:
    """Write ``(H, W, 3)`` pictures, one after the other where there are several (a GIF, 1.5 s each)."""
    first, *others = (Image.fromarray(picture) for picture in pictures)
    content = BytesIO()
    moving: dict[str, Any] = {"save_all": True, "append_images": others, "duration": 1500, "loop": 0}
    first.save(content, path.suffix[1:].upper(), **(moving if others else {}))
    write_atomic(path, content.getvalue())


def stopwatch(bandit: InstanceBandit, agent: SelfCriticalReinforce, count: int) -> str:
    """The time of the one file with everything in it, in a sentence."""
    times = time_policy(bandit, agent, build_bandit(split="val"), count)
    assert times is not None, "REINFORCE has an ONNX form"
    return (
        f"The exported file on {count} test images: {times.measured_ms.mean():.3f} ms by the clock,"
        f" {times.table_ms.mean():.3f} by the table; r = {times.correlation:.3f} over the images"
    )


def main(options: Options) -> None:
    """Learn, compare, show; a second call goes on where the first was stopped."""
    start = time.perf_counter()
    device = str(begin(options).device)
    console = Console()
    test = build_bandit(split="test", device=device)
    done = {}
    for name, row in rows(options, test):
        done[name] = row
        console.print(f"{name}: {100 * row['accuracy']:.1f} % at {row['latency_ms']:.3f} ms")
    save_json(options.out / "demo.json", done)
    show([line(name, row) for name, row in done.items()], console)
    bandit, agent = reference()
    _, outcome = measure_awareness(bandit, agent)
    console.print("\nImages that get little, and images that get much:")
    for text in easy_and_hard(bandit, outcome, options.out / "images.png"):
        console.print(text)
    console.print(f"\n{stopwatch(bandit, agent, options.stopwatch_images)}")
    console.print(f"\nwrote {options.out}/images.png, images.gif and demo.json")
    console.print(f"{time.perf_counter() - start:.0f} s")
