"""The two kinds of module of Figure 3, as chains of convolution + BatchNorm + activation.

A module computes the residual branch only: the identity is added once, by its cell.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instanas_env.cells import CellSpec, ModuleSpec

_ACTIVATIONS = {"relu": F.relu_, "relu6": F.relu6, "none": lambda x: x}


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution whose backward pass is fast on maps smaller than its kernel.

    There oneDNN falls back to a reference kernel, up to 17 times slower (2 x 2 maps, 5 x 5 kernel).
    Padding the map beforehand, and cutting off those rims of the kernel that only ever meet padding,
    computes the same thing with the fast one.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As ``nn.Conv2d``: ``(B, C, H, H)`` to ``(B, C, H / stride, H / stride)``."""
        size, kernel, padding = input.shape[-1], self.weight.shape[-1], self.kernel_size[0] // 2
        if size >= kernel or not torch.is_grad_enabled():
            return super().forward(input)
        rim = max(0, padding - (size - 1))
        weight = self.weight[:, :, rim : kernel - rim, rim : kernel - rim].contiguous()
        padded = F.pad(input, (padding - rim,) * 4)
        return F.conv2d(padded, weight, self.bias, self.stride, 0, 1, self.groups)


class ConvBN(nn.Module):
    """Convolution without bias, BatchNorm, activation ("relu", "relu6" or "none"); "same" padding."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: str = "relu",
    ):
        super().__init__()
        convolution = DepthwiseConv2d if groups == in_channels > 1 else nn.Conv2d
        self.conv = convolution(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return _ACTIVATIONS[self.activation](self.bn(self.conv(x)))


class GivenConv2d(nn.Conv2d):
    """A convolution whose weights will be given: it draws none, from the global generator least of all."""

    bias: Tensor

    def reset_parameters(self) -> None:
        """Draw nothing: a network is folded after every epoch, and drawing took most of the time."""


class FoldedConv(nn.Module):
    """A :class:`ConvBN` in evaluation mode as one convolution with bias; shares no memory."""

    def __init__(self, source: ConvBN):
        super().__init__()
        conv, bn = source.conv, source.bn
        assert bn.running_mean is not None and bn.running_var is not None
        scale = bn.weight.detach() / torch.sqrt(bn.running_var + bn.eps)
        self.conv = GivenConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[0],
            conv.stride[0],
            conv.kernel_size[0] // 2,
            groups=conv.groups,
            device="meta",
        )
        weight = conv.weight.detach() * scale.reshape(-1, 1, 1, 1)
        bias = bn.bias.detach() - bn.running_mean * scale
        self.conv.weight = _constant(weight.contiguous(memory_format=torch.channels_last))
        self.conv.bias = _constant(bias)
        self.activation = source.activation

    def forward(self, x: Tensor) -> Tensor:
        return _ACTIVATIONS[self.activation](self.conv(x))


class BasicConv(nn.Sequential):
    """Module (a): two 3x3 convolutions, ReLU after the first and ReLU6 after the second."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, kernel: int = 3):
        super().__init__(
            ConvBN(in_channels, out_channels, kernel, stride),
            ConvBN(out_channels, out_channels, kernel, activation="relu6"),
        )


class MBConv(nn.Sequential):
    """Modules (b) to (e): 1x1 expansion by F, k x k depthwise, linear 1x1 projection (MobileNetV2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, kernel: int, expansion: int):
        hidden = in_channels * expansion
        super().__init__(
            ConvBN(in_channels, hidden, 1),
            ConvBN(hidden, hidden, kernel, stride, groups=hidden),
            ConvBN(hidden, out_channels, 1, activation="none"),
        )

    @torch.no_grad()
    def inherit(self, source: MBConv) -> None:
        """Begin as much like a trained module of the same cell as the shape allows.

        Takes the hidden channels that weigh most in the source's projection, and its depthwise kernels, cut
        or with zeros around. With as many channels and a kernel no smaller it then computes the same; with
        more hidden channels than the source it stays as it is.
        """
        own, given = ([layer for layer in each if isinstance(layer, ConvBN)] for each in (self, source))
        count, most = (layers[0].conv.out_channels for layers in (own, given))
        if count > most:
            return
        weights = given[2].conv.weight.flatten(1).norm(dim=0) * given[1].bn.weight.abs()
        hidden, every = weights.topk(count).indices.sort().values, torch.arange(given[0].conv.in_channels)
        _take(own[0], given[0], hidden, every)
        _take(own[1], given[1], hidden, torch.zeros(1, dtype=torch.long))
        _take(own[2], given[2], torch.arange(given[2].conv.out_channels), hidden)


def _take(layer: ConvBN, source: ConvBN, outputs: Tensor, inputs: Tensor) -> None:
    """Copy the weights between some channels, ``(n,)`` each; kernels are cut or padded with zeros."""
    rim = (layer.conv.kernel_size[0] - source.conv.kernel_size[0]) // 2
    layer.conv.weight.copy_(F.pad(source.conv.weight[outputs][:, inputs], (rim,) * 4))
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(layer.bn, name).copy_(getattr(source.bn, name)[outputs])


def build_module(spec: ModuleSpec, cell: CellSpec) -> nn.Sequential:
    """The module ``spec`` with the shapes of ``cell``: ``(B, C_in, H, W)`` to ``(B, C_out, H/s, W/s)``."""
    if spec.kind == "basic":
        return BasicConv(cell.in_channels, cell.out_channels, cell.stride, spec.kernel)
    return MBConv(cell.in_channels, cell.out_channels, cell.stride, spec.kernel, spec.expansion)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """A copy of ``module`` for evaluation in which every :class:`ConvBN` is one convolution."""
    return _folded(module).eval().requires_grad_(False)


def _folded(module: nn.Module) -> nn.Module:
    if isinstance(module, ConvBN):
        return FoldedConv(module)
    if not module._modules:
        return copy.deepcopy(module)
    folded = copy.copy(module)
    # A copy shares its source's dictionaries: hooks registered on one would run on the other.
    vars(folded).update(
        {name: value.copy() for name, value in vars(module).items() if isinstance(value, dict)}
    )
    folded._modules = {
        name: child if child is None else _folded(child) for name, child in module._modules.items()
    }
    return folded


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
