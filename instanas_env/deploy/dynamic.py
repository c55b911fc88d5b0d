"""One ONNX file that is the whole of InstaNAS (section 3.1): it sees an image, chooses, runs what it chose.

    image uint8 (1, 3, H, W)  ->  logits float (1, C), mask bool (1, cells, modules), latency_ms float (1,)

Each module lies in a branch of an ``If``, so that nothing runs that an image did not choose; of a policy with
an early exit the whole network lies in one. A module is in the
file twice, as the only one of its cell and as one of any, and once more for each common company:
onnxruntime arranges weights for speed only in the branch that holds them.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from instanas_env.deploy.choice import (
    WriteBits,
    WriteExit,
    image_input,
    patterns,
    write_choice,
    write_outputs,
)
from instanas_env.deploy.onnx_graph import OnnxGraph, serialise, tensor_info
from instanas_env.deploy.switch import ANY, NOTHING, Fork, switches
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_cell import MetaCell
from instanas_env.networks.meta_graph import Child, MetaGraph
from instanas_env.networks.modules import FoldedConv

Statistics = tuple[float, ...]


@torch.no_grad()
def dynamic_model(
    meta_graph: MetaGraph,
    write_bits: WriteBits,
    table: LatencyTable,
    controller_ms: float,
    mean: Statistics,
    std: Statistics,
    metadata: dict[str, str] | None = None,
    typical: Tensor | None = None,
    dial: bool = False,
    write_exit: WriteExit | None = None,
) -> bytes:
    """The file.

    Args:
        meta_graph: folded, on the CPU.
        write_bits: the policy.
        table: of the same space; its ``fixed`` is counted.
        controller_ms: counted as well.
        mean, std: of each colour channel, in units of 0..1.
        metadata: strings that go into the file.
        typical: masks that images get, bool ``(K, num_cells, num_modules)``, repaired: the file is arranged
            to be fast for such as these.
        dial: whether ``write_bits`` reads a second input, ``dial``, float ``(1,)``.
        write_exit: when the policy answers itself, if it ever does; the mask is then empty.
    """
    space = meta_graph.space
    graph = OnnxGraph()
    choice = write_choice(graph, write_bits(graph, "image"), space)
    early = write_exit(graph, "image") if write_exit is not None else None
    cells = switches(space, typical)
    table_of_codes = [
        [switch.code(row) for row in rows]
        for switch, rows in zip(cells, patterns(space).tolist(), strict=True)
    ]
    codes = graph.op("Gather", graph.constant(np.array(table_of_codes).reshape(-1)), choice.rows)
    ones = graph.constant(np.ones(space.num_cells, np.int64))
    each = graph.ops("Split", codes, ones, outputs=space.num_cells, axis=0)

    def network(part: OnnxGraph) -> str:
        """Everything from the stem to the logits, written into a graph or a branch."""
        x = write_stem(part, meta_graph, mean, std)
        for t, (cell, switch) in enumerate(zip(meta_graph.cells, cells, strict=True)):
            assert isinstance(cell, MetaCell)
            x = CellWriter(cell, t, x, each[t], choice.mask).write(part, switch.tree)
        return part.network(meta_graph.head, x)

    if early is None:
        found = network(graph)
    else:
        own = early.logits
        found = graph.either(early.sure, lambda part: part.op("Identity", own), network)
    graph.rename(found, "logits")
    logits = tensor_info("logits", TensorProto.FLOAT, [1, meta_graph.num_classes])
    outputs = [logits, *write_outputs(graph, choice, table, controller_ms, early)]
    dialled = [tensor_info("dial", TensorProto.FLOAT, [1])] if dial else []
    return serialise(graph.proto([*image_input(space), *dialled], outputs), metadata)


@torch.no_grad()
def static_model(meta_graph: MetaGraph, mask: Tensor, mean: Statistics, std: Statistics) -> bytes:
    """The child of one mask, from the same ``image`` to ``logits``; arguments as above."""
    graph = OnnxGraph()
    child: Child = meta_graph.child(mask)
    x = write_stem(graph, child, mean, std)
    for layer in (*child.cells, child.head):
        x = graph.network(layer, x)
    graph.rename(x, "logits")
    logits = tensor_info("logits", TensorProto.FLOAT, [1, meta_graph.num_classes])
    return serialise(graph.proto(image_input(meta_graph.space), [logits]))


def write_stem(graph: OnnxGraph, network: MetaGraph | Child, mean: Statistics, std: Statistics) -> str:
    """Normalise ``image`` and run the stem; the division is in its weights, the shift cannot be (padding)."""
    assert isinstance(network.stem, FoldedConv), "a folded meta-graph has folded convolutions"
    shift, scale = (255 * torch.tensor(values) for values in (mean, std))
    pixels = graph.op("Cast", "image", to=TensorProto.FLOAT)
    shifted = graph.op("Sub", pixels, graph.constant(shift.view(1, 3, 1, 1)))
    return graph.convolution(shifted, network.stem, 1 / scale)


class CellWriter:
    """Writes one cell.

    Args:
        cell: folded.
        number: of the cell.
        x: its input.
        code: of its case, int64 ``(1,)``.
        mask: of all cells, bool ``(num_cells, num_modules)``, repaired.
    """

    def __init__(self, cell: MetaCell, number: int, x: str, code: str, mask: str):
        self.cell, self.number = cell, number
        self.x, self.code, self.mask = x, code, mask

    def write(self, graph: OnnxGraph, tree: Fork | int) -> str:
        """The cell's output, found by a part of the tree of its :class:`Switch`."""
        if isinstance(tree, Fork):
            left = graph.op("Less", self.code, graph.constant(np.array([tree.code])))
            branches = [partial(self.write, tree=side) for side in (tree.left, tree.right)]
            return graph.either(left, *branches)
        if tree == NOTHING:
            return graph.op("Identity", self.x)
        if tree == ANY:
            total = self._any(graph)
        else:
            chosen = [option for module, option in enumerate(self.cell.options) if tree >> module & 1]
            total = graph.mean([graph.network(option, self.x) for option in chosen])
        return graph.op("Add", self.x, total) if self.cell.keeps_shape else total

    def _any(self, graph: OnnxGraph) -> str:
        """The mean of the modules that are on; each is 0 where it is off."""
        row = graph.op("Gather", self.mask, graph.constant(np.array(self.number)))
        count = len(self.cell.options)
        bits = graph.ops("Split", row, graph.constant(np.ones(count, np.int64)), outputs=count, axis=0)
        outputs = [
            graph.either(bit, partial(OnnxGraph.network, module=option, x=self.x), _zero)
            for option, bit in zip(self.cell.options, bits, strict=True)
        ]
        total = outputs[0]
        for output in outputs[1:]:
            total = graph.op("Add", total, output)
        number = graph.op("ReduceSum", graph.op("Cast", row, to=TensorProto.FLOAT), keepdims=1)
        return graph.op("Div", total, number)


def _zero(graph: OnnxGraph) -> str:
    return graph.op("Identity", graph.constant(np.zeros((1, 1, 1, 1), np.float32)))
