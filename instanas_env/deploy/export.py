"""An agent and its meta-graph as one file that onnxruntime runs without this package, and without PyTorch."""

from __future__ import annotations

import json
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from torch import nn

from instanas_env.data import DataRecord
from instanas_env.deploy.choice import Exit, WriteBits
from instanas_env.deploy.dynamic import dynamic_model
from instanas_env.deploy.onnx_graph import OnnxGraph
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.networks.modules import FoldedConv
from instanas_env.search_space import SearchSpace


class Policy(Protocol):
    """What an agent needs to be exported."""

    space: SearchSpace

    @property
    def controller(self) -> nn.Module | None:
        """The network that each choice costs, if it costs one."""

    num_classes: int
    """So many classes it names; 0 where it names none."""

    @property
    def may_answer(self) -> bool:
        """Whether it may answer images itself."""

    @property
    def has_dial(self) -> bool:
        """Whether its :meth:`bits_to_onnx` takes a ``dial``."""

    def bits_to_onnx(self, graph: OnnxGraph, image: str) -> str:
        """Write the deterministic policy: image uint8 ``(1, 3, H, W)`` to bits, bool ``(1, num_bits)``."""

    def exit_to_onnx(self, graph: OnnxGraph, image: str) -> Exit | None:
        """Write when it answers an image itself; None if it never does."""


def export(
    agent: Policy,
    meta_graph: MetaGraph,
    table: LatencyTable,
    data: DataRecord,
    dial: bool = False,
) -> bytes:
    """The content of an ``.onnx`` file; see :mod:`instanas_env.deploy.dynamic` for its inputs and outputs.

    Its metadata hold ``classes``, ``search_space``, ``mean``, ``std`` as JSON, ``policy`` and ``version``.

    Args:
        agent: any whose policy can be written; its controller's latency is counted if it has one.
        meta_graph: of the same space, folded or not.
        table: of the same space.
        data: of the images that both were trained on, such as ``image_set.record``.
        dial: the file gets a second input, ``dial``, float ``(1,)``, which replaces the agent's trade-off.

    Raises:
        ValueError: parts that do not belong together, or an agent that has no ONNX form.
    """
    space = meta_graph.space
    space.expect(agent=agent.space, table=table.space)
    if table.unit != "ms":
        raise ValueError(f"table: got one of {table.unit}; one of ms will do")
    if len(data.classes) != meta_graph.num_classes:
        raise ValueError(
            f"classes: got {len(data.classes)}; the meta-graph's {meta_graph.num_classes} will do"
        )
    if dial and not agent.has_dial:
        raise ValueError(f"dial: {type(agent).__name__} has none; RewardRegression will do")
    if agent.may_answer and agent.num_classes != len(data.classes):
        raise ValueError(f"agent: names {agent.num_classes} classes; {len(data.classes)} will do")
    folded = meta_graph if isinstance(meta_graph.stem, FoldedConv) else meta_graph.folded()
    controller_ms = 0.0 if agent.controller is None else table.controller
    metadata = {
        "classes": json.dumps(data.classes),
        "search_space": json.dumps(space.config),
        "mean": json.dumps(data.mean),
        "std": json.dumps(data.std),
        "policy": type(agent).__name__,
        "version": _version(),
    }
    write_bits: WriteBits = agent.bits_to_onnx
    if dial:
        write_bits = partial(agent.bits_to_onnx, dial="dial")  # type: ignore[call-arg]
    return dynamic_model(
        folded.cpu(),
        write_bits,
        table,
        controller_ms,
        data.mean,
        data.std,
        metadata,
        data.typical,
        dial,
        agent.exit_to_onnx,
    )


def _version() -> str:
    try:
        return version("instanas-env")
    except PackageNotFoundError:  # run from its sources
        return "unknown"
