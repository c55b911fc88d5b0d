"""Measure the look-up table of a search space on this machine, and check it against real children.

    instanas profile --out runs/latency.json

Run it on a quiet machine. Latency does not depend on weights, so none are needed. The file (JSON) also
records the estimated and the real latency of random children, which `instanas report` draws (Figure 4).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.progress import Progress

from agents.controller import Controller
from instanas_env.build import parse_device, parse_search_space
from instanas_env.deploy.profiling import profile_table
from instanas_env.deploy.timing import Backend
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.networks.modules import fold_batch_norm
from instanas_env.search_space import MOBILENET_V2_BLOCK
from instanas_env.seeding import generator_for
from instanas_env.training.distributed import ALONE
from instanas_env.training.run_directory import machine
from scripts.options import Space


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """How to measure, and how often; an experiment has these in its preset."""

    device: str = "cpu"
    backend: Backend = "onnx"
    """What runs the networks: onnxruntime, or PyTorch's eager mode (for a GPU, and to compare)."""
    fitted: int = 400
    """Random children whose times the table is fitted to."""
    children: int = 200
    """Other random children, to check it on; 0 leaves the check out."""
    repetitions: int = 25
    """How often each child is timed; the 20th percentile counts."""


@dataclass(frozen=True, kw_only=True)
class Options(Numbers, Space):
    """What to measure and how often."""

    out: Path = field(kw_only=False)
    """The table to write, such as runs/latency.json."""
    meta_graph: Path | None = None
    """Weights whose file tells search space, modules and classes; they change no latency."""
    num_classes: int = 10
    seed: int = 0


def main(options: Options) -> None:
    """Measure, check, write."""
    generator = generator_for(options.seed)
    if options.meta_graph is not None:
        meta_graph = MetaGraph.load(options.meta_graph)
    else:
        space = parse_search_space(options.search_space).only(*options.modules)
        meta_graph = MetaGraph(space, options.num_classes, generator).eval()
    device = parse_device(options.device)
    space = meta_graph.to(device).space
    controller = fold_batch_norm(Controller(space)).to(device)
    with Progress() as progress:
        calls = (options.fitted + options.children) * options.repetitions
        task = progress.add_task("children timed", total=calls)
        table, quality = profile_table(
            meta_graph,
            controller,
            generator,
            options.fitted,
            options.children,
            options.repetitions,
            options.backend,
            partial(progress.advance, task),
        )
    record = {**table.record, **machine(ALONE.on(device)), "threads": 1}
    if options.children:
        record["estimate"] = {
            "children": options.children,
            "correlation": quality.correlation,
            "median_relative_error": quality.median_error,
            "estimated_ms": quality.estimated_ms.tolist(),
            "real_ms": quality.measured_ms.tolist(),
        }
        print(
            f"estimated against real: r = {quality.correlation:.4f}, median error {quality.median_error:.1%}"
        )
    dataclasses.replace(table, record=record).save(options.out)
    for name in ("full", *(["mobilenet_v2"] if MOBILENET_V2_BLOCK in space.modules else []), "cheapest"):
        print(f"{name:13s} {table.reference(name):7.3f} ms")
    print(f"{'controller':13s} {table.controller:7.3f} ms\nwrote {options.out}")
