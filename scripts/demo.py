"""What InstaNAS is about, in 2 to 5 minutes on the embedded images: each image gets the network it needs.

    instanas demo

On the shipped meta-graph, frozen, a one-shot search looks for the best fixed mask, two controllers learn, and
everything is measured on the 1,000 test images, beside a controller that comes with the package. At last that
one answers the images that it is sure of. Writes
``images.png`` and ``images.gif``, three images that get little and three that get much, and ``demo.json``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from agents.early_exit import NEVER, EarlyExit
from agents.evaluation.alone import latencies, load_lone
from agents.evaluation.awareness import measure
from agents.evaluation.clock import time_policy
from agents.evaluation.over_seeds import over_seeds
from agents.files import load_agent
from instanas_env.bandit import InstanceBandit
from instanas_env.build import build_bandit, shipped
from instanas_env.seeding import generator_for
from instanas_env.storage import save_json
from instanas_env.training.run_directory import FREE, RunDirectory
from scripts.begin import begin
from scripts.comparison import ranking, tables
from scripts.comparison.contest import Budget, Contest
from scripts.comparison.rows import Comparison
from scripts.early_exit import LOSE, chosen, one_network, points
from scripts.options import Compute
from scripts.report.easy_and_hard import easy_and_hard

EMBEDDED = {"dataset": "embedded", "search_space": "lite"}
NAMES = {
    "fixed": "best fixed mask",
    "regression": "regression, learnt here",
    "reinforce": "REINFORCE, learnt here",
}
NOTES = """\
1,000 test images of Fashion-MNIST; brackets hold 95 % intervals over images. REINFORCE, shipped: learnt from
200,000 images of Fashion-MNIST's whole training split. Early exit: its controller answers the images that it
is sure of, the others go through its networks or through MobileNetV2.

Images that get little, and images that get much:"""


@dataclass(frozen=True, kw_only=True)
class Options(Budget, Compute):
    """How long to learn, and where to write."""

    out: Path = Path("runs/demo")
    steps: int = 160_000
    """Answers that each of the two learns from, about any of the 4,000 training images."""
    masks: int = 60
    menu: int = 24
    passes: int = 20
    stopwatch_images: int = 200
    """Test images that the one file with everything in it is timed on."""
    seed: int = 0


def rows(options: Options, test: InstanceBandit) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and figures of policies on the test images: MobileNetV2 trained alone, and what is learnt here."""
    alone, generator = load_lone(shipped("mobilenet_v2.safetensors")), generator_for(options.seed)
    comparison = Comparison(test.image_set, options.seed)
    comparison.add_network(test, alone, latencies([alone], test, generator)[0])
    yield "MobileNetV2 alone", comparison.rows[0]["test"]
    run = RunDirectory(options.out, options, free=(*FREE, "stopwatch_images"))
    device, budget = str(test.device), Budget.of(options)
    contest = Contest(options.out, EMBEDDED, budget, options.seed, progress=True, device=device)
    run.read(**contest.files)
    run.bind(val=contest.val.image_set, test=contest.test.image_set)
    run.claim()
    for row in ranking.rows(contest, tuple(NAMES), (options.seed,)):
        yield NAMES[row["policy"]], row["test"]


Exit = tuple[str, InstanceBandit, EarlyExit]
"""Name, the weights on the test images, policy."""


def exits(val: InstanceBandit, test: InstanceBandit, agent: Any) -> Iterator[Exit]:
    """Where the agent answers what it is sure of, as often as hardly costs accuracy on validation: before its
    own networks, and before MobileNetV2 trained alone.
    """
    alone, mask = one_network(shipped("mobilenet_v2.safetensors"), test.space)
    for name, graph, fixed in (("REINFORCE, shipped", test.meta_graph, None), ("MobileNetV2", alone, mask)):
        table = test.latency_table
        on_val, on_test = (InstanceBandit(graph, split.image_set, table) for split in (val, test))
        policy = EarlyExit(agent, NEVER, fixed)
        policy.confidence = chosen(list(points(policy, on_val)), LOSE)["confidence"]
        yield f"{name}, early exit", on_test, policy


def main(options: Options) -> None:
    """Learn, compare, show; a second call goes on where the first was stopped."""
    start = time.perf_counter()
    device = str(begin(options).device)
    val, test = (
        build_bandit(split=split, meta_graph=str(shipped("reference/meta_graph.safetensors")))
        for split in ("val", "test")
    )
    agent = load_agent(shipped("reference/controller.safetensors"))
    scores, outcome = measure(test, agent)
    learnt = rows(options, build_bandit(split="test", device=device))
    done = {}
    leaving = list(exits(val, test, agent))
    early = ((name, measure(bandit, policy)[0].known()) for name, bandit, policy in leaving)
    for name, row in chain(learnt, [("REINFORCE, shipped", scores.known())], early):
        done[name] = row
        print(f"{name}: {100 * row['accuracy']:.1f} % at {row['latency_ms']:.3f} ms", flush=True)
    save_json(options.out / "demo.json", done)
    lines = over_seeds([{"policy": name, "seed": 0, "test": row} for name, row in done.items()])
    shown = tables.table([{**line, "seeds": None, "hypervolume": None} for line in lines])
    shown.show()
    print(f"{tables.notes(shown)}\n{NOTES}")
    print("\n".join(easy_and_hard(test, outcome, options.out / "images.png")))
    print(f"\nThe exported files on {options.stopwatch_images} test images:")
    for name, bandit, policy in (("REINFORCE, shipped", test, agent), *leaving):
        times = time_policy(bandit, policy, val, options.stopwatch_images)
        assert times is not None, "REINFORCE has an ONNX form"
        print(
            f"{name}: {times.measured_ms.mean():.3f} ms by the clock, {times.estimated_ms.mean():.3f} by the"
            f" table; r = {times.correlation:.3f} over the images"
        )
    print(f"\nwrote {options.out}/images.png, images.gif and demo.json")
    print(f"{time.perf_counter() - start:.0f} s")
