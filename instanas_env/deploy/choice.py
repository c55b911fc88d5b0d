"""From the bits of a policy to a repaired mask and its latency, by look-up: the part before the network.

A choice in a cell is one of the 2^M patterns of its M modules. What follows from it is in tables with a row
for each pattern of each cell, so that repair, latency and the way through a cell's ``If`` nodes are a
``Gather`` each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from instanas_env.deploy.onnx_graph import OnnxGraph, serialise, tensor_info
from instanas_env.latency import LatencyTable
from instanas_env.search_space import SearchSpace


@dataclass(frozen=True)
class Exit:
    """The values in a graph of a policy that answers some images itself.

    Attributes:
        sure: whether it does, bool ``(1,)``.
        logits: of its answer, float ``(1, C)``.
    """

    sure: str
    logits: str


WriteBits = Callable[[OnnxGraph, str], str]
"""Writes a policy: from an image, uint8 ``(1, 3, H, W)``, to bits, bool ``(1, num_bits)``, not repaired."""
WriteExit = Callable[[OnnxGraph, str], Exit | None]
"""Writes when a policy answers an image itself; None of one that never does."""


def patterns(space: SearchSpace) -> Tensor:
    """What each cell runs for each pattern, repaired: bool ``(num_cells, 2^M, M)``; module m is bit m."""
    modules = torch.arange(space.num_modules)
    rows = (torch.arange(2**space.num_modules).unsqueeze(1) >> modules) % 2 == 1
    return space.repair(rows.unsqueeze(1).expand(-1, space.num_cells, -1)).transpose(0, 1)


@dataclass(frozen=True)
class Choice:
    """The values in a graph that say what was chosen.

    Attributes:
        rows: of each cell in tables of all patterns, int64 ``(num_cells,)``.
        mask: bool ``(num_cells, num_modules)``, repaired.
    """

    rows: str
    mask: str


def write_choice(graph: OnnxGraph, bits: str, space: SearchSpace) -> Choice:
    """Repair bits, bool ``(1, num_bits)``, and tell which patterns they are."""
    powers = torch.block_diag(*[2.0 ** torch.arange(space.num_modules).view(1, -1)] * space.num_cells)
    offsets = 2.0**space.num_modules * torch.arange(space.num_cells)
    numbers = graph.linear(graph.op("Cast", bits, to=TensorProto.FLOAT), powers, offsets)
    flat = graph.op("Reshape", numbers, graph.constant(np.array([-1])))
    rows = graph.op("Cast", flat, to=TensorProto.INT64)
    return Choice(rows, graph.op("Gather", graph.constant(patterns(space).flatten(0, 1)), rows))


def write_outputs(
    graph: OnnxGraph, choice: Choice, table: LatencyTable, controller_ms: float, early: Exit | None = None
) -> list:
    """Write the outputs ``mask`` and ``latency_ms``, and describe them; of an early exit no module runs."""
    space = table.space
    shape = [1, *space.mask_shape]
    mask = graph.op("Reshape", choice.mask, graph.constant(np.array(shape)))
    graph.rename(mask if early is None else graph.op("And", mask, graph.op("Not", early.sure)), "mask")
    costs = (patterns(space) * table.modules.unsqueeze(1)).sum(2)
    costs = costs + (table.fixed + controller_ms) / space.num_cells
    picked = graph.op("Gather", graph.constant(costs.flatten().float()), choice.rows)
    latency = graph.op("ReduceSum", picked, keepdims=1)
    if early is not None:
        latency = graph.op(
            "Where", early.sure, graph.constant(np.array([controller_ms], np.float32)), latency
        )
    graph.rename(latency, "latency_ms")
    return [
        tensor_info("mask", TensorProto.BOOL, shape),
        tensor_info("latency_ms", TensorProto.FLOAT, [1]),
    ]


def image_input(space: SearchSpace) -> list:
    """The input ``image``."""
    side = space.resolution
    return [tensor_info("image", TensorProto.UINT8, [1, 3, side, side])]


@torch.no_grad()
def choice_model(
    write_bits: WriteBits, table: LatencyTable, controller_ms: float, write_exit: WriteExit | None = None
) -> bytes:
    """The policy alone: ``image`` to ``mask`` and ``latency_ms``, as :func:`dynamic_model` gives them.

    Of a policy with an early exit the ``logits`` of its own answer come third; they count where the mask is
    empty.
    """
    graph = OnnxGraph()
    choice = write_choice(graph, write_bits(graph, "image"), table.space)
    early = write_exit(graph, "image") if write_exit is not None else None
    outputs = write_outputs(graph, choice, table, controller_ms, early)
    if early is not None:
        graph.rename(early.logits, "logits")
        outputs.append(tensor_info("logits", TensorProto.FLOAT, [1, "classes"]))
    return serialise(graph.proto(image_input(table.space), outputs))
