"""Child networks and controllers as ONNX models, written from their folded weights in milliseconds.

    child_model(meta_graph, mask)       images float (B, 3, H, W), normalised  ->  logits (B, C)
    controller_model(controller)        images uint8 (B, 3, H, W)              ->  logits (B, outputs)

Plain operators alone (Conv, Relu, Clip, Add, Mul, GlobalAveragePool, Flatten, Gemm), any batch size.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np
from torch import Tensor, nn

from instanas_env.deploy.graph import Graph, bytes_, floats
from instanas_env.meta_graph import Child, ChildCell, MetaGraph
from instanas_env.modules import FoldedConv, fold_batch_norm

MIDDLE = 127.5  # of the range of uint8: controllers see images scaled to [-1, 1]


def child_model(meta_graph: MetaGraph, mask: Tensor) -> bytes:
    """The network that ``mask`` selects.

    Args:
        meta_graph: folded or not, on any device; a folded one saves the folding.
        mask: bool ``(num_cells, num_modules)``, repaired here.

    Returns:
        A model from ``images``, float ``(batch, 3, H, W)``, normalised, to ``logits`` ``(batch, classes)``.
    """
    side = meta_graph.space.resolution
    return network_model(meta_graph.child(mask), side, meta_graph.num_classes)


def network_model(network: nn.Module, side: int | str = "side", num_classes: int | str = "classes") -> bytes:
    """A folded network of normalised images of ``side`` px as a model, as :func:`child_model` gives it.

    Raises:
        ValueError: it has a layer that is not known here.
    """
    graph = Graph()
    graph.node("Identity", layers(network, graph, "images"), output="logits")
    return graph.model([floats("images", "batch", 3, side, side)], [floats("logits", "batch", num_classes)])


def controller_model(controller: nn.Module) -> bytes:
    """A controller by itself.

    Args:
        controller: :class:`agents.controller.Controller`, folded or not, or what has one as its ``network``.

    Returns:
        A model from ``images``, uint8 ``(batch, 3, H, W)``, to ``logits``, ``(batch, outputs)``.
    """
    graph = Graph()
    pixels = graph.node("Cast", "images", to=1)
    graph.node("Identity", controller_layers(controller, graph, pixels), output="logits")
    outputs = bare_controller(controller).output.out_features
    inputs = [bytes_("images", "batch", 3, "height", "width")]
    return graph.model(inputs, [floats("logits", "batch", outputs)])  # type: ignore[arg-type]


def bare_controller(controller: nn.Module) -> nn.Module:
    """The network with ``features`` and ``output`` in a controller; ``ValueError`` if there is none."""
    bare = getattr(controller, "network", controller)
    if not (isinstance(bare, nn.Module) and hasattr(bare, "features") and hasattr(bare, "output")):
        raise ValueError(f"controller: got {type(controller).__name__}; the paper's, or what holds it, will do")
    return bare


def controller_layers(controller: nn.Module, graph: Graph, pixels: str) -> str:
    """Write a controller that sees ``pixels``, float 0 to 255 ``(B, 3, H, W)``; gives ``(B, outputs)``."""
    bare = bare_controller(controller)
    features = fold_batch_norm(bare.features)  # type: ignore[arg-type]
    shrink = features.shrink
    if shrink > 1:
        pixels = graph.node("AveragePool", pixels, kernel_shape=[shrink] * 2, strides=[shrink] * 2)  # type: ignore[list-item]
    first, *rest = features.convolutions  # type: ignore[misc]
    x = shifted_convolution(graph, pixels, first, np.full(3, MIDDLE), np.full(3, MIDDLE))
    return layers(nn.Sequential(*rest, bare.output), graph, x)  # type: ignore[arg-type]


def shifted_convolution(
    graph: Graph, pixels: str, layer: FoldedConv, middle: np.ndarray, scale: np.ndarray
) -> str:
    """``layer`` of ``(pixels - middle) / scale``, both ``(3,)``; the division is in the weights."""
    shifted = graph.node("Sub", pixels, graph.constant(middle.reshape(1, 3, 1, 1), np.float32))
    weight = layer.conv.weight.detach().cpu().double().numpy() / scale.reshape(1, 3, 1, 1)
    return _convolution(graph, shifted, layer, weight.astype(np.float32))


@singledispatch
def layers(module: nn.Module, graph: Graph, x: str) -> str:
    """Write ``module``, folded, into ``graph``, from the tensor named ``x``; gives its output's name.

    Raises:
        ValueError: a layer of a kind that is not known here.
    """
    raise ValueError(f"network: no ONNX is known for {type(module).__name__}; fold BatchNorm beforehand")


@layers.register
def _(module: FoldedConv, graph: Graph, x: str) -> str:
    return _convolution(graph, x, module, array(module.conv.weight))


@layers.register
def _(module: nn.Sequential, graph: Graph, x: str) -> str:
    for layer in module:
        x = layers(layer, graph, x)
    return x


@layers.register
def _(module: nn.AdaptiveAvgPool2d, graph: Graph, x: str) -> str:
    if module.output_size not in (1, (1, 1)):
        raise ValueError(f"network: pools to {module.output_size}; 1 will do")
    return graph.node("GlobalAveragePool", x)


@layers.register
def _(module: nn.Flatten, graph: Graph, x: str) -> str:
    return graph.node("Flatten", x, axis=1)


@layers.register
def _(module: nn.Linear, graph: Graph, x: str) -> str:
    return graph.node("Gemm", x, *map(graph.constant, (array(module.weight), array(module.bias))), transB=1)


@layers.register
def _(module: ChildCell, graph: Graph, x: str) -> str:
    outputs = [layers(option, graph, x) for option in module.options]
    total = outputs[0]
    for output in outputs[1:]:
        total = graph.node("Add", total, output)
    if len(outputs) > 1:
        total = graph.node("Mul", total, graph.constant(1 / len(outputs), np.float32))
    return graph.node("Add", x, total) if module.keeps_shape else total


@layers.register
def _(module: Child, graph: Graph, x: str) -> str:
    for layer in (module.stem, *module.cells, module.head):
        x = layers(layer, graph, x)
    return x


def array(tensor: Tensor) -> np.ndarray:
    """The values of a weight, contiguous."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def _convolution(graph: Graph, x: str, layer: FoldedConv, weight: np.ndarray) -> str:
    """``layer`` with other weights, and its activation."""
    conv = layer.conv
    x = graph.convolution(x, weight, array(conv.bias), conv.stride, conv.padding, conv.groups)  # type: ignore[arg-type]
    if layer.activation == "none":
        return x
    return graph.node("Relu", x) if layer.activation == "relu" else graph.clip(x, 0.0, 6.0)
