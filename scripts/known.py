"""What a run knows is not asked again: the data set, where it is, the latency table, the search space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from instanas_env.build import SHIPPED_SPACE, search_space_name
from instanas_env.search_space import SearchSpace
from instanas_env.storage import load_json
from instanas_env.validation import record, text_or_none

T = TypeVar("T")
TABLE = "latency.json"
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
        if config.get("run"):  # fine-tuned: its search knows what both began with
            config = _config(Path(config["run"]))
        if config.get("meta_graph") and Path(config["meta_graph"]).is_file():
            known["meta_graph"] = Path(config["meta_graph"])
        if (run / TABLE).is_file():
            known["latency_table"] = run / TABLE
    known.setdefault("dataset", "embedded")
    if "data_dir" in known:
        known["data_dir"] = Path(known["data_dir"])
    names = {field.name for field in fields(options)}  # type: ignore[arg-type]
    missing = {name for name in names if getattr(options, name) is None}
    return replace(options, **{name: value for name, value in known.items() if name in missing})  # type: ignore[type-var]


def _config(run: Path) -> dict[str, Any]:
    file = run / "config.json"
    return _KNOWN(load_json(file), str(file)) if file.is_file() else {}


def space_name(meta_graph: Path | None) -> str:
    """The search space of weights, as ``gym.make`` has it; the shipped one for None."""
    return SHIPPED_SPACE if meta_graph is None else search_space_name(SearchSpace.of_file(meta_graph))
