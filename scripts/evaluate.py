"""Compare policies on the test split, once: a table, results.json and images.safetensors.

    instanas evaluate --out runs/evaluation --runs runs/search --dataset fashion_mnist
    instanas report runs/evaluation

Fixed policies on a meta-graph, networks trained alone, and the controllers in ``runs``, each on the
meta-graph beside it. By default the meta-graph is the shipped one, and what else the package holds
(MobileNetV2 trained alone, the long searches) is compared as well; the search space is that of its file.
What is chosen (the best static masks) is chosen on the validation split. Run it on a quiet machine if the
real latencies matter. Killed and called again, it goes on with the policies that are missing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.evaluation.image_record import make_record
from agents.evaluation.over_seeds import over_seeds
from instanas_env.deploy.timing import Backend
from instanas_env.storage import save_json
from instanas_env.training.bound import IMAGE_SETS, described
from instanas_env.training.run_directory import machine
from scripts.begin import begin
from scripts.comparison.compare import compare
from scripts.comparison.tables import pairs, table
from scripts.options import Compute, DataOfRun, Folder, Weights, filled


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """How closely to compare; an experiment has these in its preset."""

    alone: tuple[Path, ...] = ()
    """Networks trained alone (`instanas pretrain --modules 2`, `instanas baseline`): run
    directories or weights."""
    dial: tuple[float, ...] = (0.3, 0.4, 0.6)
    """Settings of a regression controller's dial: mean latency of its networks on the validation split,
    in multiples of MobileNetV2's. A pick of `instanas choose` stays at its own."""
    one_shot_limits: tuple[float, ...] = (0.4, 0.6, 1.0)
    """Its best masks at these multiples of MobileNetV2's latency are compared."""
    control_masks: int = 100
    """Fixed masks sampled and mutated on the meta-graph of each search, for the best one no slower than its
    controller, beside those that the controller uses most, the one-shot frontier, and the menu, if it has
    one."""
    control_networks: int = 24
    """How many of those there are; the oracle picks among them for each image."""
    control_images: int = 2000
    """Validation images that those masks are ranked on at first, and test images that the oracle is asked."""
    time_real: bool = True
    """Measure real latencies of separate children."""
    backend: Backend = "onnx"
    """What runs them: onnxruntime, or PyTorch's eager mode."""


@dataclass(frozen=True, kw_only=True)
class Options(Numbers, Compute, Weights, DataOfRun, Folder):
    """What to compare, on which images."""

    runs: tuple[Path, ...] = ()
    """Directories with controller.safetensors and meta_graph.safetensors."""
    one_shot: Path | None = None
    """Directory of `instanas oneshot`, whose frontier is taken in place of a search here."""
    one_shot_masks: int = 400
    """Masks that the one-shot search ranks on validation."""
    meta_graph: Path | None = None
    """Pre-trained weights that fixed masks run on; by default those that the first run began with. Their file
    tells the search space, which is that of all runs."""
    latency_table: Path | None = None
    """Latencies in that search space; by default those of the first run, or the shipped ones."""
    seed: int = 0


def as_typed(value: Any) -> str:
    """An option's value as on the command line: several with spaces between them."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def main(options: Options) -> None:
    """Compare, write, print."""
    world = begin(options)
    options = filled(options, options.runs)
    comparison = compare(options, world)
    config = {name: as_typed(value) for name, value in dataclasses.asdict(options).items()}
    # The record is of no use without the results, which come last and so mark a finished comparison.
    record = make_record(comparison.image_set, comparison.choices, options.seed)
    record.save(options.out / "images.safetensors")
    lines, gains = over_seeds(comparison.rows), comparison.gains
    made = {
        "options": config,
        IMAGE_SETS: {"test": described(comparison.image_set)},
        "machine": machine(world),
    }
    save_json(
        options.out / "results.json", {**made, "policies": lines, "gains": gains, "rows": comparison.rows}
    )
    if comparison.kept is not None:
        comparison.kept.discard()
    table(lines).show()
    if gains:
        pairs(gains).show()
    print(f"wrote {options.out}/results.json, images.safetensors; `instanas report {options.out}` draws them")
