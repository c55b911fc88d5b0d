"""Networks as ONNX graphs, written node by node from weights with BatchNorm folded.

torch's exporter traces a network, which takes a second; here a layer is a node, and a child is written in
milliseconds. A module of another package says how it is written in a method ``to_onnx(graph, x) -> str``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import Tensor, nn

from instanas_env.networks.meta_graph import Child, ChildCell
from instanas_env.networks.modules import FoldedConv

OPSET = 17
IR_VERSION = 8  # old enough for runtimes of 2022


class OnnxGraph:
    """Nodes and constants of a graph, or of the branch of an ``If``; values are known by their names.

    Args:
        parent: what this is a branch of.
    """

    def __init__(self, parent: OnnxGraph | None = None):
        self.nodes: list[NodeProto] = []
        self._root: OnnxGraph = self if parent is None else parent._root
        self._constants: list[TensorProto] = []
        self._written: dict[Hashable, str] = {}
        self._count = 0

    def constant(self, value: Any) -> str:
        """A constant of this graph, from a tensor, an array or a NumPy number.

        A branch has constants of its own: onnxruntime arranges weights for its convolutions only in the
        graph that holds them.
        """
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        self._constants.append(numpy_helper.from_array(np.require(array, requirements="C"), self._name()))
        return self._constants[-1].name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Append a node with several outputs."""
        names = [self._name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def once(self, key: Hashable, write: Callable[[], str]) -> str:
        """The value that ``write`` names, written the first time that this graph is asked for ``key``."""
        if key not in self._written:
            self._written[key] = write()
        return self._written[key]

    def convolution(self, x: str, layer: FoldedConv, scale: Tensor | None = None) -> str:
        """Convolution and activation; ``scale`` ``(in_channels,)`` multiplies what comes in."""
        return self.activation(self.plain_convolution(x, layer.conv, scale), layer.activation)

    def plain_convolution(self, x: str, conv: nn.Conv2d, scale: Tensor | None = None) -> str:
        """A convolution without activation."""
        weight = conv.weight if scale is None else conv.weight * scale.view(1, -1, 1, 1)
        return self.op(
            "Conv",
            x,
            self.constant(weight),
            *([] if conv.bias is None else [self.constant(conv.bias)]),
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=[int(padding) for padding in conv.padding] * 2,
            group=conv.groups,
        )

    def activation(self, x: str, name: str) -> str:
        """ "relu", "relu6" or "none"."""
        if name == "relu6":
            return self.op("Clip", x, self.constant(np.float32(0)), self.constant(np.float32(6)))
        return self.op("Relu", x) if name == "relu" else x

    def linear(self, x: str, weight: Tensor, bias: Tensor) -> str:
        """``x`` ``(B, in)`` times ``weight`` ``(out, in)`` transposed, plus ``bias``."""
        return self.op("Gemm", x, self.constant(weight), self.constant(bias), transB=1)

    def network(self, module: nn.Module, x: str) -> str:
        """The output of ``module`` for the value ``x``.

        Raises:
            ValueError: a module that nobody says how to write.
        """
        if hasattr(module, "to_onnx"):
            return module.to_onnx(self, x)  # type: ignore[operator]
        if isinstance(module, FoldedConv):
            return self.convolution(x, module)
        if isinstance(module, Child):
            parts: Sequence[nn.Module] = [module.stem, *module.cells, module.head]
        elif isinstance(module, nn.Sequential):
            parts = list(module)
        else:
            return self._layer(module, x)
        for part in parts:
            x = self.network(part, x)
        return x

    def _layer(self, module: nn.Module, x: str) -> str:
        if isinstance(module, ChildCell):
            total = self.mean([self.network(option, x) for option in module.options])
            return self.op("Add", x, total) if module.keeps_shape else total
        if isinstance(module, nn.Linear):
            return self.linear(x, module.weight, module.bias)
        if isinstance(module, nn.Flatten):
            return self.op("Flatten", x)
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            return self.op("GlobalAveragePool", x)
        raise ValueError(
            f"network: got a {type(module).__name__}; a network with BatchNorm folded, whose modules are"
            " known here or have a method to_onnx, will do"
        )

    def mean(self, values: Sequence[str]) -> str:
        """The mean of one or more values of one shape."""
        if len(values) == 1:
            return values[0]
        return self.op("Mul", self.op("Sum", *values), self.constant(np.float32(1 / len(values))))

    def either(
        self, condition: str, then: Callable[[OnnxGraph], str], otherwise: Callable[[OnnxGraph], str]
    ) -> str:
        """An ``If``: runs one of two branches.

        Args:
            condition: a bool of one element.
            then, otherwise: write into the branch they are given, and name their output, made there.
        """
        branches = {}
        for name, write in (("then_branch", then), ("else_branch", otherwise)):
            branch = OnnxGraph(self)
            output = helper.make_empty_tensor_value_info(write(branch))
            branches[name] = branch.proto(outputs=[output])
        return self.op("If", condition, **branches)

    def rename(self, value: str, name: str) -> None:
        """Call a value, an output say, by a given name."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))

    def proto(
        self, inputs: Sequence[ValueInfoProto] = (), outputs: Sequence[ValueInfoProto] = ()
    ) -> GraphProto:
        """The graph, with its constants."""
        return helper.make_graph(self.nodes, "graph", list(inputs), list(outputs), self._constants)

    def _name(self) -> str:
        self._root._count += 1
        return f"v{self._root._count}"


def tensor_info(name: str, kind: int, shape: Sequence[int | str]) -> ValueInfoProto:
    """The name, the type (``TensorProto.FLOAT``, say) and the shape of an input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def serialise(graph: GraphProto, metadata: dict[str, str] | None = None) -> bytes:
    """A model with this graph, as the bytes of an ``.onnx`` file."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="instanas")
    model.ir_version = IR_VERSION
    helper.set_model_props(model, metadata or {})
    return model.SerializeToString()


@torch.no_grad()
def to_onnx(network: nn.Module, example: Tensor) -> bytes:
    """The ONNX model of ``network``: input "images", output "logits", any batch size.

    Args:
        network: with BatchNorm folded, such as :meth:`MetaGraph.child`, which takes normalised images, or a
            controller, which takes uint8 ones.
        example: an input ``(B, 3, H, W)`` of the right type and size.

    Raises:
        ValueError: a module that cannot be written, such as a BatchNorm that was not folded.
    """
    graph = OnnxGraph()
    graph.rename(graph.network(network, "images"), "logits")
    kind = helper.np_dtype_to_tensor_dtype(example.numpy().dtype)
    inputs = [tensor_info("images", kind, ["batch", *example.shape[1:]])]
    return serialise(graph.proto(inputs, [tensor_info("logits", TensorProto.FLOAT, ["batch", "outputs"])]))
