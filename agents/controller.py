"""The paper's controller (section 3.3): three convolutions with large kernels, then one logit per module."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor, nn

from instanas_env import paper
from instanas_env.deploy.onnx_graph import OnnxGraph
from instanas_env.networks.meta_graph import initialise
from instanas_env.networks.modules import ConvBN, FoldedConv, fold_batch_norm
from instanas_env.search_space import SearchSpace

MIDDLE = 127.5  # of the range of uint8


class Controller(nn.Module):
    """uint8 images ``(B, 3, H, W)`` to ``(B, outputs)``.

    Images are shrunk to 32 px and scaled to [-1, 1]; convolutions of 7, 5 and 5 px with strides 4, 2 and
    2 lead to a 2 x 2 map. It is small and has few operations, since its time is part of every inference.

    Args:
        space: gives the number of outputs, unless ``outputs`` does.
        channels: of the three convolutions.
        outputs: None means one for each bit of a mask.
        generator: draws the initial weights. The last layer starts at zero: p = 1/2 everywhere.
    """

    def __init__(
        self,
        space: SearchSpace,
        channels: tuple[int, int, int] = paper.CONTROLLER_CHANNELS,
        outputs: int | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        first, second, third = channels
        k1, k2, k3 = paper.CONTROLLER_KERNELS
        with torch.device("meta"):  # PyTorch's own initialisation would draw from the global generator
            self.features = LargeKernels(
                max(1, space.resolution // paper.CONTROLLER_RESOLUTION),
                ConvBN(3, first, k1, stride=4),
                ConvBN(first, second, k2, stride=2),
                ConvBN(second, third, k3, stride=2),
                nn.Flatten(),
            )
            self.output = nn.Linear(4 * third, space.num_bits if outputs is None else outputs)
        initialise(self, generator or torch.Generator().manual_seed(0))
        nn.init.zeros_(self.output.weight)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 ``(B, 3, H, W)`` to ``(B, outputs)``."""
        return self.output(self.features(images))

    def to_onnx(self, graph: OnnxGraph, images: str) -> str:
        """Write the folded controller into a graph; see :class:`OnnxGraph`."""
        return graph.network(self.output, graph.network(self.features, images))


def outputs_to_onnx(controller: Controller, graph: OnnxGraph, image: str, wanted: Tensor) -> str:
    """Write a controller, folded or not, that has some combinations of its outputs only, ``(1, n)``.

    Its layers but for the last are written once, however many combinations a graph has.

    Args:
        controller: of which these outputs are wanted.
        graph: to write into.
        image: uint8 ``(1, 3, H, W)``.
        wanted: the weights of the outputs in each combination, ``(n, outputs)``.
    """
    layers = controller.features
    features = graph.once((id(layers), image), lambda: graph.network(fold_batch_norm(layers), image))
    return graph.linear(features, wanted @ controller.output.weight, wanted @ controller.output.bias)


class LargeKernels(nn.Sequential):
    """uint8 images ``(B, 3, H, W)`` to ``(B, features)``: shrunk by a factor, scaled, then all layers."""

    def __init__(self, shrink: int, *layers: nn.Module):
        super().__init__(*layers)
        self.shrink = shrink

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(_scaled(images, self.shrink))

    def to_onnx(self, graph: OnnxGraph, images: str) -> str:
        """Write it, folded: the scale goes into the first convolution, the shift must not (padding)."""
        x = graph.op("Cast", images, to=TensorProto.FLOAT)
        if self.shrink > 1:
            side = [self.shrink, self.shrink]
            x = graph.op("AveragePool", x, kernel_shape=side, strides=side)
        x = graph.op("Sub", x, graph.constant(np.float32(MIDDLE)))
        first, *rest = self
        assert isinstance(first, FoldedConv)
        x = graph.convolution(x, first, torch.full((3,), 1 / MIDDLE))
        return graph.network(nn.Sequential(*rest), x)


def _scaled(images: Tensor, shrink: int) -> Tensor:
    """uint8 images as float in [-1, 1], their side divided by ``shrink``."""
    x = images.to(torch.float32, memory_format=torch.channels_last, copy=True).sub_(MIDDLE).div_(MIDDLE)
    return F.avg_pool2d(x, shrink) if shrink > 1 else x
