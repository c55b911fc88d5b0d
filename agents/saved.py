"""A run's folder <-> an agent, its meta-graph, the latency table, and what is to be known of the images.

controller.safetensors   the agent
meta_graph.safetensors   the weights
latency.json             the table
data.json                class names, mean and deviation of the training images, typical masks
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from agents.agent import Agent
from agents.evaluation.picks import Pick, controller_file
from agents.files import load_agent
from instanas_env.build import NotMeasured, shipped_table
from instanas_env.checks import explained
from instanas_env.data import DataRecord, ImageSet
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MAX_CLASSES, MetaGraph
from instanas_env.search_space import SearchSpace, as_text
from instanas_env.storage import PathLike, load_json, save_json
from instanas_env.training.matching import META_GRAPH
from instanas_env.validation import items, number, or_none, record, text

DATA = "data.json"
TABLE = "latency.json"
TYPICAL = 500  # validation images whose masks are recorded, by which an exported file is arranged

_CONTENT = record(
    {
        "classes": items(text(), 1, MAX_CLASSES),
        "mean": items(number(), 3, 3),
        "std": items(number(0, above=True), 3, 3),
    },
    {"typical": or_none(items(text()))},
)


@dataclass(frozen=True)
class SavedRun:
    """What :func:`load_run` reads."""

    agent: Agent
    meta_graph: MetaGraph
    table: LatencyTable
    data: DataRecord


def save_data(
    folder: PathLike, images: ImageSet, table: LatencyTable | None, typical: Tensor | None = None
) -> None:
    """Write ``data.json`` and ``latency.json`` beside a run's weights.

    Args:
        folder: of the run.
        images: any split of the run's data set.
        table: the run's; None leaves it out.
        typical: masks that images got, bool ``(K, num_cells, num_modules)``.
    """
    content = {
        "classes": list(images.classes),
        "mean": list(images.mean),
        "std": list(images.std),
        "typical": None if typical is None else as_text(typical),
    }
    save_json(Path(folder) / DATA, content)
    if table is not None:
        table.save(Path(folder) / TABLE)


def table_file(folder: PathLike, space: SearchSpace) -> Path | None:
    """The file of :func:`table_of`."""
    own = Path(folder) / TABLE
    with contextlib.suppress(NotMeasured):  # nobody measured this space
        return own if own.is_file() else shipped_table(space)
    return None


def table_of(folder: PathLike, space: SearchSpace) -> LatencyTable | None:
    """The table in a run's folder, or else the one shipped for this space, or else None."""
    file = table_file(folder, space)
    table = None if file is None else LatencyTable.load(file)
    return table if table is not None and table.space == space else None


def load_run(folder: PathLike, prefer: Pick | None = None, latency_table: PathLike | None = None) -> SavedRun:
    """Read what `instanas search`, `finetune` or `early-exit` left in ``folder``.

    Args:
        folder: of the run.
        prefer: one of the trade-offs that `instanas choose` picked; None means the run's own controller.
        latency_table: file of another table than the run's.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file of another kind.
    """
    folder = Path(folder)
    agent = load_agent(controller_file(folder, prefer))
    meta_graph = MetaGraph.load(folder / META_GRAPH)
    table = LatencyTable.load(needed(folder, TABLE) if latency_table is None else latency_table)
    return SavedRun(agent, meta_graph, table, load_data(folder, meta_graph.space))


def load_data(folder: PathLike, space: SearchSpace) -> DataRecord:
    """Read ``data.json``; ``space`` is that of the run. Errors as :func:`load_run`."""
    path = needed(Path(folder), DATA)
    with explained(f"data: {path} does not tell classes, mean and std"):
        content = _CONTENT(load_json(path), "data")
        rows = content.get("typical")
        typical = None if rows is None else space.masks_from_text(rows, "typical")
    return DataRecord(tuple(content["classes"]), tuple(content["mean"]), tuple(content["std"]), typical)


def check_same_classes(known: Sequence[str], given: Sequence[str]) -> None:
    """``ValueError`` if a data set has other classes, or another order, than a run was trained on."""
    if tuple(known) != tuple(given):
        got, ours = (", ".join(names[:5]) + (", ..." if len(names) > 5 else "") for names in (given, known))
        raise ValueError(
            f"image_set: got {len(given)} classes, {got}; the run's {len(known)}, {ours}, will do"
        )


def needed(folder: Path, name: str) -> Path:
    """A file of a run; ``FileNotFoundError`` says who writes it."""
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"{folder / name}: no such file; `instanas search`, `finetune` and `early-exit` write it"
        )
    return folder / name
