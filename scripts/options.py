"""Options that several verbs have, said once; what a run knows already is filled in.

A verb's ``Options`` inherits the groups that it reads: the folder, images, weights, training, the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from agents.saved import TABLE
from instanas_env import checks, paper
from instanas_env.build import SHIPPED_SPACE, search_space_name, shipped, shipped_table
from instanas_env.data import LIGHT, Augmentation
from instanas_env.search_space import ALL_MODULES, SearchSpace
from instanas_env.storage import load_json
from instanas_env.training.matching import META_GRAPH
from instanas_env.validation import record, text_or_none

T = TypeVar("T")
MODULES = tuple(range(len(ALL_MODULES)))

LEAST = {name: 0 for name in ("seed", "modules", "children", "control_masks", "frozen_epochs")}
LEAST |= {"curriculum_epochs": 0, "random_epochs": 0, "clock": 0, "classes": 0, "images": 0, "mutations": 0}
LEAST |= {"passes": 0, "batch_size": 2}
"""Whole numbers among the options are at least 1, but for these."""
MOST = {"threads": 1024}
SIGNED = ("wrong_reward", "entropy_coefficient")
"""Other numbers are not negative, but for these."""


@dataclass(frozen=True)
class Folder:
    """Where a verb writes."""

    out: Path
    """Directory of the run."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The images."""

    dataset: str = "embedded"
    """Data set, see instanas_env.data.load_images."""
    data_dir: Path | None = None
    """Where its files are."""


@dataclass(frozen=True, kw_only=True)
class DataOfRun:
    """The images of an earlier run."""

    dataset: str | None = None
    """By default that of the (first) run, or the embedded one."""
    data_dir: Path | None = None
    """By default where that run had it."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A meta-graph and the latencies of its modules."""

    meta_graph: Path | None = None
    """Pre-trained weights, whose file tells the search space; by default the shipped ones."""
    latency_table: Path | None = None
    """Latencies in the same search space; by default the ones shipped for it."""

    @property
    def weights_file(self) -> Path:
        """The meta-graph's file."""
        return self.meta_graph or shipped(META_GRAPH)

    @property
    def table_file(self) -> Path:
        """The latency table's file."""
        return self.latency_table or shipped_table(SearchSpace.of_file(self.weights_file))


@dataclass(frozen=True, kw_only=True)
class Space:
    """A search space without weights."""

    search_space: str = "lite"
    """Preset: cifar, tiny_imagenet, imagenet or lite, with a width after an @ if it is not 1: "cifar@0.5"."""
    modules: tuple[int, ...] = MODULES
    """Modules of a cell; "2" alone is MobileNetV2 (then nothing is dropped)."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What the networks run on."""

    device: str = "auto"
    """Where the networks compute: cpu, cuda, cuda:1; auto is CUDA where there is one, else the CPU."""
    threads: int = 1
    """Threads of PyTorch; two runs of one thread each are faster than one run of two."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training with SGD, epoch by epoch."""

    epochs: int = 24
    batch_size: int = 128
    """Images a step (section 4.2: 32; 128 is twice as fast on a CPU)."""
    learning_rate: float = paper.PRETRAIN_LEARNING_RATE
    """Peak, after a warm-up of one epoch; then cosine to 0."""
    weight_decay: float = paper.WEIGHT_DECAY
    """Of all parameters, biases and BatchNorm's too."""
    augmentation: Augmentation = LIGHT
    """Crop, flip and cut-out of the training images."""


def check_options(options: Any) -> None:
    """``ValueError`` names an option whose number cannot be meant: epochs of -1, a learning rate of NaN."""
    for entry in fields(options):
        value, name = getattr(options, entry.name), entry.name
        for part in value if isinstance(value, tuple) else (value,):
            if is_dataclass(part):
                check_options(part)
            elif isinstance(part, int) and not isinstance(part, bool):
                checks.whole(name, part, LEAST.get(name, 1), MOST.get(name))
            elif isinstance(part, float):
                checks.number(name, part, -checks.LARGEST if name in SIGNED else 0)


# --- what a run knows --------------------------------------------------------------------------------

_KNOWN = record({}, dict.fromkeys(("dataset", "data_dir", "run", "meta_graph"), text_or_none), more=True)


def filled(options: T, runs: Sequence[Path] = ()) -> T:
    """The options with what was left out (None) and the first of ``runs`` knows.

    Args:
        options: a dataclass; of its fields ``dataset``, ``data_dir``, ``latency_table`` and ``meta_graph``
            those that are None are filled. What no run tells stays None, but for the data set: "embedded".
        runs: directories of runs; the first tells.
    """
    known: dict[str, Any] = {}
    for run in runs[:1]:
        config = _config(run)
        known = {name: config[name] for name in ("dataset", "data_dir") if config.get(name)}
        seen = {run}
        while config.get("run") and Path(config["run"]) not in seen:  # fine-tuned: its search knows the rest
            seen.add(Path(config["run"]))
            config = _config(Path(config["run"]))
        if config.get("meta_graph"):
            known["meta_graph"] = Path(config["meta_graph"])
        if (run / TABLE).is_file():
            known["latency_table"] = run / TABLE
    known.setdefault("dataset", "embedded")
    if "data_dir" in known:
        known["data_dir"] = Path(known["data_dir"])
    names = {field.name for field in fields(options)}  # type: ignore[arg-type]
    missing = {name for name in names if getattr(options, name) is None}
    if "meta_graph" in missing and "meta_graph" in known:  # not the shipped one, silently
        checks.file("meta_graph", known["meta_graph"])
    return replace(options, **{name: value for name, value in known.items() if name in missing})  # type: ignore[type-var]


def _config(run: Path) -> dict[str, Any]:
    file = run / "config.json"
    return _KNOWN(load_json(file), str(file)) if file.is_file() else {}


def environment(options: Any) -> dict[str, Any]:
    """Keyword arguments of ``gym.make`` from options with data and weights; paths as strings, as in JSON."""
    names = ("dataset", "data_dir", "meta_graph", "latency_table")
    given = {name: str(getattr(options, name)) for name in names if getattr(options, name) is not None}
    return {**given, "search_space": space_name(options.meta_graph)}


def space_name(meta_graph: Path | None) -> str:
    """The search space of weights, as ``gym.make`` has it; the shipped one for None."""
    return SHIPPED_SPACE if meta_graph is None else search_space_name(SearchSpace.of_file(meta_graph))
