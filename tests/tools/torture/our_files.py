"""Every kind of file of ours, written once, and who reads it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agents.files import load_agent
from agents.reinforce import SelfCriticalReinforce
from agents.saved import load_data
from agents.static import RandomAgent, StaticAgent
from instanas_env.build import shipped
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.storage import (
    load_checkpoint,
    load_json,
    load_json_lines,
    save_checkpoint,
    save_json,
)
from instanas_env.tabulated import Tabulated
from instanas_env.wrappers.menu import load_menu, save_menu
from tests.tools.compare_runs import identical
from tests.tools.scratch import TABLE

SPACE = SearchSpace.preset("lite", width=0.25).only(0, 2)
LITE = SearchSpace.preset("lite")


@dataclass(frozen=True)
class Kind:
    """A file that is whole, and who reads it.

    Attributes:
        path: of the whole file.
        load: reads a path, and gives something that says everything that was read.
        checked: whether every byte counts, because of a checksum.
    """

    path: Path
    load: Callable[[Path], Any]
    checked: bool = True


def _table(path: Path) -> Any:
    table = LatencyTable.load(path)
    return [table.space.config, table.modules, table.fixed, table.controller, table.unit, table.record]


def _weights_of(path: Path) -> Any:
    graph = MetaGraph.load(path)
    return [
        graph.space.config,
        graph.num_classes,
        {k: v for k, v in graph.state_dict().items() if "num_b" not in k},
    ]


def _agent(path: Path) -> Any:
    agent = load_agent(path)
    weights = {} if agent.controller is None else dict(agent.controller.state_dict())
    kept = {name: getattr(agent, name) for name in agent.hyperparameters}
    return [type(agent).__name__, agent.space.config, kept, weights]


def _twin(path: Path) -> Any:
    table = Tabulated.load(path)
    return [table.space.config, table.masks, table.latency_ms, table.packed, table.images, table.references]


def _data(path: Path) -> Any:
    record = load_data(path.parent, LITE)
    return [record.classes, record.mean, record.std, record.typical]


@functools.cache
def kinds() -> dict[str, Kind]:
    """Every kind of file of ours, written once."""
    home = Path(tempfile.mkdtemp(prefix="instanas-fuzz-"))
    graph = MetaGraph(SPACE, 3, generator_for(0)).eval()
    graph.save(home / "meta_graph.safetensors")
    StaticAgent(LITE, LITE.full_mask()).save(home / "static.safetensors")
    RandomAgent(LITE, 0.3).save(home / "random.safetensors")
    SelfCriticalReinforce(None, space=SPACE, num_classes=3).save(home / "reinforce.safetensors")
    masks = LITE.random_masks(3, 0.5, generator_for(1))
    save_menu(home / "menu.json", LITE, masks)
    save_menu(home / "menu.safetensors", LITE, masks)
    state = {"model": {"w": torch.arange(6.0)}, "epoch": 3, "history": [{"loss": 0.5}]}
    save_checkpoint(home / "checkpoint.pt", state)
    (home / "history.jsonl").write_text('{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "loss": 0.25}\n')
    save_json(home / "results.json", {"policies": [{"name": "a", "reward": 0.5}], "seeds": [1, 2]})
    return {
        "table": Kind(TABLE, _table),
        "menu": Kind(home / "menu.json", lambda path: load_menu(path, LITE)),
        "menu weights": Kind(home / "menu.safetensors", lambda path: load_menu(path, LITE)),
        "meta-graph": Kind(home / "meta_graph.safetensors", _weights_of),
        "static agent": Kind(home / "static.safetensors", _agent),
        "random agent": Kind(home / "random.safetensors", _agent),
        "reinforce": Kind(home / "reinforce.safetensors", _agent),
        "checkpoint": Kind(home / "checkpoint.pt", load_checkpoint),
        "history": Kind(home / "history.jsonl", load_json_lines, checked=False),
        "results": Kind(home / "results.json", load_json),
        "twin": Kind(shipped("tabular.safetensors"), _twin),
        "data.json": Kind(shipped("reference/data.json"), _data),
    }


def same(one: Any, other: Any) -> bool:
    """Whether two things that were read are the same, bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return identical(one, other)


@functools.cache
def whole(kind: str) -> Any:
    """What the undamaged file holds."""
    return kinds()[kind].load(kinds()[kind].path)


@functools.cache
def folder() -> Path:
    """Where damaged files are written; one at a time."""
    return Path(tempfile.mkdtemp(prefix="instanas-damaged-"))
