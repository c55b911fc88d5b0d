"""Networks of torchvision as ONNX graphs: a symbolic trace is run once, and each of its layers written.

It knows what ResNets, ShuffleNetV2 and MobileNetV2 are made of.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn


class TracedNetwork(fx.Interpreter):
    """Writes a traced network while it runs it on an example, which tells the sizes.

    Args:
        network: with BatchNorm folded.
        graph: an :class:`instanas_env.deploy.onnx_graph.OnnxGraph` to write into.
    """

    def __init__(self, network: fx.GraphModule, graph: Any):
        super().__init__(network)
        self.graph_out = graph
        self._names: dict[int, str] = {}  # of tensors, by identity
        self._kept: list[Any] = []  # so that no identity is used twice

    @torch.no_grad()
    def write(self, x: str, example: Tensor) -> str:
        """The output for the value ``x``; ``example`` ``(B, 3, H, W)`` is an input."""
        self._name(example, x)
        return self._names[id(self.run(example))]

    def run_node(self, n: fx.Node) -> Any:
        """Run a node; write it if it makes tensors."""
        if n.op in ("placeholder", "output", "get_attr"):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        value = super().run_node(n)
        if isinstance(value, Tensor) and n.target is not operator.getitem:  # which hands on what has a name
            self._name(value, self._written(n, args, kwargs, value))
        elif isinstance(value, tuple) and n.target == "chunk":
            sizes = self.graph_out.constant(np.array([part.shape[1] for part in value]))
            inputs = (self._names[id(args[0])], sizes)
            for part, name in zip(
                value, self.graph_out.ops("Split", *inputs, outputs=len(value), axis=1), strict=True
            ):
                self._name(part, name)
        return value

    def _name(self, value: Any, name: str) -> None:
        self._names[id(value)] = name
        self._kept.append(value)

    def _written(self, n: fx.Node, args: Any, kwargs: Any, value: Tensor) -> str:
        graph = self.graph_out
        if n.op == "call_module":
            return self._layer(self.fetch_attr(str(n.target)), self._names[id(args[0])])
        if n.target in (torch.cat,):
            return graph.op("Concat", *(self._names[id(part)] for part in args[0]), axis=1)
        if n.target in (operator.add, operator.iadd, torch.add):
            return graph.op("Add", *(self._names[id(part)] for part in args))
        x = self._names[id(args[0])]
        if n.target in ("view", "flatten", torch.flatten):
            return graph.op("Reshape", x, graph.constant(np.array([-1, *value.shape[1:]])))
        if n.target is torch.transpose:
            order = list(range(value.ndim))
            order[args[1]], order[args[2]] = order[args[2]], order[args[1]]
            return graph.op("Transpose", x, perm=order)
        if n.target == "contiguous":
            return x
        if n.target == "mean":
            return graph.op("ReduceMean", x, axes=list(args[1]), keepdims=0)
        if n.target is nn.functional.adaptive_avg_pool2d:
            return graph.op("GlobalAveragePool", x)
        raise ValueError(f"network: {n.format_node()} is not known; see instanas_env/networks/traced.py")

    def _layer(self, layer: Any, x: str) -> str:
        graph = self.graph_out
        if isinstance(layer, (nn.Identity, nn.Dropout)):
            return x
        if isinstance(layer, nn.Conv2d):
            return graph.plain_convolution(x, layer)
        if isinstance(layer, (nn.ReLU, nn.ReLU6)):
            return graph.activation(x, type(layer).__name__.lower())
        return graph.network(layer, x)
