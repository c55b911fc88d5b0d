"""A thin pen for ONNX graphs: each method appends a node and gives the name of its output."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET = 17  # onnxruntime has it since 1.12, in the browser too
IR_VERSION = 8
PRODUCER = "instanas-env"


class Graph:
    """A graph in the making; names are unique in it and in all graphs inside it.

    Args:
        numbers: what names are numbered with; None starts at 0. A graph inside another takes the other's.
    """

    def __init__(self, numbers: Iterator[int] | None = None):
        self._numbers = itertools.count() if numbers is None else numbers
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []

    def constant(self, value: Any, dtype: Any = None) -> str:
        """The name of a new initializer: anything that ``np.asarray`` takes."""
        name = f"w{next(self._numbers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def node(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node with one output.

        Args:
            operator: of ONNX, such as "Relu".
            inputs: names of what it takes; "" leaves one out.
            output: its output's name; None means a new one.
            attributes: of the operator.
        """
        output = output or f"x{next(self._numbers)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        """``x`` cut along ``axis`` into parts of these sizes."""
        parts = [f"x{next(self._numbers)}" for _ in sizes]
        self.nodes.append(
            helper.make_node("Split", [x, self.constant(sizes, np.int64)], parts, axis=axis)
        )
        return parts

    def convolution(
        self,
        x: str,
        weight: np.ndarray,
        bias: np.ndarray | None,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        groups: int = 1,
    ) -> str:
        """A convolution: weight ``(C_out, C_in / groups, k, k)``, bias ``(C_out,)``."""
        constants = [self.constant(weight)] + ([] if bias is None else [self.constant(bias)])
        return self.node(
            "Conv",
            x,
            *constants,
            kernel_shape=weight.shape[2:],
            strides=stride,
            pads=[*padding, *padding],
            group=groups,
        )

    def clip(self, x: str, low: float, high: float) -> str:
        """``x`` cut off below ``low`` and above ``high``."""
        return self.node("Clip", x, self.constant(low, np.float32), self.constant(high, np.float32))

    def either(self, condition: str, then: Callable[[Graph], str], otherwise: Callable[[Graph], str]) -> str:
        """An ``If``: of two graphs the one that runs when ``condition``, bool of one element, says so.

        Args:
            condition: name of a bool.
            then, otherwise: write into the graph they are given and name its output, which must be made there.
        """
        branches = {}
        for name, write in (("then_branch", then), ("else_branch", otherwise)):
            inner = Graph(self._numbers)
            result = helper.make_empty_tensor_value_info(write(inner))
            branches[name] = helper.make_graph(inner.nodes, name, [], [result], inner.initializers)
        return self.node("If", condition, **branches)

    def model(
        self,
        inputs: Sequence[ValueInfoProto],
        outputs: Sequence[ValueInfoProto],
        metadata: dict[str, str] | None = None,
    ) -> bytes:
        """The finished file; ``metadata`` is found in ``get_modelmeta().custom_metadata_map``."""
        graph = helper.make_graph(self.nodes, "instanas", inputs, outputs, self.initializers)
        model: ModelProto = helper.make_model(
            graph,
            producer_name=PRODUCER,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        helper.set_model_props(model, metadata or {})
        return model.SerializeToString()


def floats(name: str, *shape: int | str) -> ValueInfoProto:
    """An input or output of float32; a string in its shape names a dimension of any length."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def bytes_(name: str, *shape: int | str) -> ValueInfoProto:
    """The same of uint8."""
    return helper.make_tensor_value_info(name, TensorProto.UINT8, shape)


def booleans(name: str, *shape: int | str) -> ValueInfoProto:
    """The same of bool."""
    return helper.make_tensor_value_info(name, TensorProto.BOOL, shape)
