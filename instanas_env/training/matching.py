"""Whether the files of a comparison belong together; read from their headers, so before any work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from instanas_env import checks
from instanas_env.latency import LatencyTable
from instanas_env.search_space import SearchSpace
from instanas_env.storage import load_config

META_GRAPH = "meta_graph.safetensors"
CONTROLLER = "controller.safetensors"


def check_spaces(
    meta_graph: Path, latency_table: Path, runs: Iterable[Path]
) -> tuple[SearchSpace, LatencyTable]:
    """The search space of a meta-graph's file, and the table, if that and all ``runs`` are of this space.

    Args:
        meta_graph: weights.
        latency_table: JSON.
        runs: directories with a controller and a meta-graph.

    Raises:
        FileNotFoundError: one of the files is not there.
        ValueError: something belongs to another space; the message names the option.
    """
    space = SearchSpace.of_file(meta_graph)
    table = LatencyTable.load(checks.file("latency_table", latency_table))
    if table.space != space:
        raise ValueError(
            f"latency_table: {latency_table} is of the search space {table.space.config}; the meta-graph has"
            f" {space.config}; `instanas profile` measures one"
        )
    for file in (folder / name for folder in runs for name in (META_GRAPH, CONTROLLER)):
        found = SearchSpace.of_file(file)
        if found != space:
            raise ValueError(f"runs: {file} is of the search space {found.config}, not {space.config}")
    return space, table


def check_classes(meta_graph: Path, runs: Iterable[Path], num_classes: int) -> None:
    """``ValueError`` unless the weights tell ``num_classes`` apart, which the data set has."""
    files = [("meta_graph", meta_graph), *(("runs", folder / META_GRAPH) for folder in runs)]
    for option, file in files:
        classes = load_config(file)["num_classes"]
        if classes != num_classes:
            raise ValueError(f"{option}: {file} has {classes} classes; the data set has {num_classes}")
