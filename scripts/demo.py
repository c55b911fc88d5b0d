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
from scripts.begin import begin
from scripts.comparison import ranking
from scripts.comparison.contest import Budget, Contest
from scripts.comparison.text_table import Columns, TextTable
from scripts.options import Compute
from scripts.report.pictures import png_of

EMBEDDED = {"dataset": "embedded", "search_space": "lite"}
NAMES = {
    "fixed": "best fixed mask",
    "regression": "regression, learnt here",
    "reinforce": "REINFORCE, learnt here",
}
COLUMNS: Columns = {
    "policy": lambda row: row["name"],
    "right, %": lambda row: f"{100 * row['accuracy']:.1f}",
    "ms": lambda row: f"{row['latency_ms']:.3f}",
    "networks": lambda row: f"{row['networks']:,}",
    "lost shuffled": lambda row: (
        f"{100 * (row['accuracy'] - row['shuffled_accuracy']):.1f}" if row["networks"] > 1 else ""
    ),
    "names, %": lambda row: "" if row["names_accuracy"] is None else f"{100 * row['names_accuracy']:.1f}",
}
NOTES = """\
1,000 test images of Fashion-MNIST. ms: deployed, with the controller's. lost shuffled: points of accuracy
that the same masks lose when other images get them. names: what the controller gets right by itself.
REINFORCE, shipped: learnt from 200,000 images of Fashion-MNIST's whole training split."""


@dataclass(frozen=True, kw_only=True)
class Options(Budget, Compute):
    """How long to learn, and where to write."""

    out: Path = Path("runs/demo")
    steps: int = 160_000
    """Answers that each of the two learns from, about any of the 4,000 training images."""
    masks: int = 60
    menu: int = 24
    gradient_steps: int = 20
    stopwatch_images: int = 200
    """Test images that the one file with everything in it is timed on."""
    seed: int = 0


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
    run = RunDirectory(options.out, options, free=(*FREE, "stopwatch_images"))
    device, budget = str(test.device), Budget.of(options)
    contest = Contest(options.out, EMBEDDED, budget, options.seed, progress=True, device=device)
    run.bind(val=contest.val.image_set, test=contest.test.image_set)
    run.claim()
    for row in ranking.rows(contest, tuple(NAMES), (options.seed,)):
        yield NAMES[row["policy"]], row["test"]
    yield "REINFORCE, shipped", vars(measure_awareness(*reference())[0])


def reference() -> tuple[InstanceBandit, SelfCriticalReinforce]:
    """The shipped controller, and the test split on the meta-graph beside it."""
    bandit = build_bandit(split="test", meta_graph=str(shipped("reference/meta_graph.safetensors")))
    agent = load_agent(shipped("reference/controller.safetensors"))
    assert isinstance(agent, SelfCriticalReinforce)
    return bandit, agent


def easy_and_hard(bandit: InstanceBandit, outcome: Outcome, path: Path) -> list[str]:
    """Write a picture of three images that got least and three that got most; a line about each."""
    order = np.argsort(outcome.latency_ms, kind="stable")
    chosen = torch.from_numpy(np.concatenate([order[:3], order[-3:]]).copy())
    contexts = Contexts(chosen, bandit.image_set.images[chosen])
    masks = outcome.mask[chosen.numpy()].reshape(len(chosen), -1)
    pictures = frames(bandit, contexts, bandit.score(contexts, masks))
    write_atomic(path, png_of(np.concatenate(pictures)))
    write_atomic(path.with_suffix(".gif"), gif_of(pictures))
    classes, lines = bandit.image_set.classes, []
    for i in chosen.tolist():
        modules, name = int(outcome.mask[i].sum()), classes[outcome.label[i]]
        answer = "right" if outcome.correct[i] else f"wrong, {classes[outcome.prediction[i]]}"
        lines.append(f"  {name:12s} {modules:2d} modules  {outcome.latency_ms[i]:.3f} ms  {answer}")
    return lines


def gif_of(pictures: Sequence[np.ndarray]) -> bytes:
    """Pictures ``(H, W, 3)``, one after the other, 1.5 s each, as a GIF file."""
    first, *others = map(Image.fromarray, pictures)
    content = BytesIO()
    first.save(content, "GIF", save_all=True, append_images=others, duration=1500, loop=0)
    return content.getvalue()


def stopwatch(bandit: InstanceBandit, agent: SelfCriticalReinforce, count: int) -> str:
    """The time of the one file with everything in it, in a sentence."""
    times = time_policy(bandit, agent, build_bandit(split="val"), count)
    assert times is not None, "REINFORCE has an ONNX form"
    return (
        f"The exported file on {count} test images: {times.measured_ms.mean():.3f} ms by the clock,"
        f" {times.estimated_ms.mean():.3f} by the table; r = {times.correlation:.3f} over the images"
    )


def main(options: Options) -> None:
    """Learn, compare, show; a second call goes on where the first was stopped."""
    start = time.perf_counter()
    test = build_bandit(split="test", device=str(begin(options).device))
    done = {}
    for name, row in rows(options, test):
        done[name] = row
        print(f"{name}: {100 * row['accuracy']:.1f} % at {row['latency_ms']:.3f} ms", flush=True)
    save_json(options.out / "demo.json", done)
    TextTable.of(COLUMNS, [{"name": name, **row} for name, row in done.items()]).show()
    print(NOTES)
    bandit, agent = reference()
    _, outcome = measure_awareness(bandit, agent)
    print("\nImages that get little, and images that get much:")
    print("\n".join(easy_and_hard(bandit, outcome, options.out / "images.png")))
    print(f"\n{stopwatch(bandit, agent, options.stopwatch_images)}")
    print(f"\nwrote {options.out}/images.png, images.gif and demo.json")
    print(f"{time.perf_counter() - start:.0f} s")
