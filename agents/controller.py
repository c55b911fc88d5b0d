"""The paper's controller (section 3.3): three convolutions with large kernels, then one logit per module."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instanas_env import paper
from instanas_env.meta_graph import initialise
from instanas_env.modules import ConvBN, Foldable, FoldedConv
from instanas_env.search_space import SearchSpace


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
        self.shrink = max(1, space.resolution // paper.CONTROLLER_RESOLUTION)
        first, second, third = channels
        k1, k2, k3 = paper.CONTROLLER_KERNELS
        with torch.random.fork_rng(devices=[]):  # PyTorch's own initialisation draws from the global one
            self.features = LargeKernels(
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
        x = images.to(torch.float32, memory_format=torch.channels_last).sub_(127.5).div_(127.5)
        if self.shrink > 1:
            x = F.avg_pool2d(x, self.shrink)
        return self.output(self.features(x))


class LargeKernels(Foldable, nn.Sequential):
    """Convolutions with ReLU (:class:`ConvBN`), then a flattening: ``(B, C, H, W)`` to ``(B, features)``."""

    def folded(self) -> FoldedLargeKernels:
        """The same function in evaluation mode, faster; shares no memory."""
        return FoldedLargeKernels([layer.folded() for layer in self if isinstance(layer, ConvBN)])


class FoldedLargeKernels(nn.Module):
    """The convolutions of a single image as matrix products of its windows.

    oneDNN's convolution takes twice as long on maps this small, most of it for rearranging the weights.
    Batches, GPUs and exported graphs get it nevertheless.
    """

    def __init__(self, convolutions: list[FoldedConv]):
        super().__init__()
        self.convolutions = nn.Sequential(*convolutions)
        # Looked up beforehand, as at this size that counts. A matrix is a view of channels_last weights.
        self._products = [
            (
                layer.conv.weight.permute(0, 2, 3, 1).flatten(1),
                layer.conv.bias,
                layer.conv.kernel_size[0],
                layer.conv.stride[0],
            )
            for layer in convolutions
        ]

    def forward(self, x: Tensor) -> Tensor:
        """As :class:`LargeKernels`."""
        if torch.jit.is_tracing() or x.shape[0] > 1 or not x.is_cpu:
            return self.convolutions(x).flatten(1)
        x = x.permute(0, 2, 3, 1)
        for matrix, bias, kernel, stride in self._products:
            x = F.linear(_windows(x, kernel, stride), matrix, bias).relu_()
        return x.permute(0, 3, 1, 2).flatten(1)


def _windows(x: Tensor, kernel: int, stride: int) -> Tensor:
    """What a convolution with "same" padding sees: ``(B, H, W, C)`` to ``(B, H', W', k * k * C)``."""
    rim = kernel // 2
    padded = F.pad(x, (0, 0, rim, rim, rim, rim))
    windows = padded.unfold(1, kernel, stride).unfold(2, kernel, stride)  # (B, H', W', C, k, k)
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(3)
