"""The modules of Figure 3: their layers, their sizes, and the two rewrites that must change nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from instanas_env.cells import ALL_MODULES, CellSpec
from instanas_env.networks.modules import (
    BasicConv,
    ConvBN,
    DepthwiseConv2d,
    MBConv,
    build_module,
    fold_batch_norm,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("activation", ["relu", "relu6", "none"])
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(1, 1, 1), (3, 2, 1), (3, 1, 6), (5, 2, 6)])
def test_folding_changes_no_output(randomise_batch_norm, kernel, stride, groups, activation):
    block = randomise_batch_norm(ConvBN(6, 12, kernel, stride, groups, activation), 3)
    block.bn.running_var[0] = 1e-5  # a channel that hardly varies: here BatchNorm's eps counts
    images = 3 * draw(2, 6, 9, 9)  # times 3, so that some outputs pass relu6's limit
    torch.testing.assert_close(fold_batch_norm(block)(images), block(images), rtol=1e-5, atol=1e-5)


def test_folding_whole_modules_leaves_no_batch_norm_and_shares_no_memory(randomise_batch_norm):
    """A folded copy is taken in the middle of training: later steps must not reach it."""
    block = nn.Sequential(MBConv(4, 6, 2, 5, 3), nn.Flatten(), nn.Linear(6 * 4 * 4, 3))
    randomise_batch_norm(block, 3)
    folded, images = fold_batch_norm(block), draw(2, 4, 8, 8)
    before = block(images).detach()
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert all(parameter.requires_grad for parameter in block.parameters()), "the source stays trainable"
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
    torch.testing.assert_close(folded(images), before, rtol=1e-5, atol=1e-5)


def test_folding_keeps_the_precision(randomise_batch_norm):
    """A float64 block folds to a float64 block."""
    block = randomise_batch_norm(ConvBN(3, 4, 3), 3).double()
    images = draw(1, 3, 5, 5).double()
    torch.testing.assert_close(fold_batch_norm(block)(images), block(images))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", range(1, 9))
def test_depthwise_equals_conv2d_and_so_do_its_gradients(size, kernel, stride):
    """On maps smaller than the kernel the class computes by another way: same outputs, same gradients."""
    arguments = {"stride": stride, "padding": kernel // 2, "groups": 3, "bias": False}
    ours, plain = DepthwiseConv2d(3, 3, kernel, **arguments), nn.Conv2d(3, 3, kernel, **arguments)
    plain.load_state_dict(ours.state_dict())
    images = draw(2, 3, size, size)
    outputs, gradients = [], []
    for layer in (ours, plain):
        leaf = images.clone().requires_grad_()
        out = layer(leaf)
        outputs.append(out.detach())
        gradients.append(torch.autograd.grad(out, (leaf, layer.weight), draw(*out.shape, seed=1)))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), outputs[1], rtol=1e-5, atol=1e-5)


def test_basic_conv_layers():
    """Two full 3x3 convolutions; the first one carries the stride."""
    first, second = BasicConv(3, 5, 2)
    assert (first.conv.kernel_size, first.conv.stride, first.conv.groups) == ((3, 3), (2, 2), 1)
    assert (second.conv.kernel_size, second.conv.stride, second.conv.groups) == ((3, 3), (1, 1), 1)
    assert [first.activation, second.activation] == ["relu", "relu6"]
    assert count(BasicConv(3, 5, 2)) == 9 * 3 * 5 + 2 * 5 + 9 * 5 * 5 + 2 * 5


def test_relu6_ends_a_basic_conv():
    block = BasicConv(3, 5, 1).train()
    nn.init.constant_(block[1].bn.weight, 100.0)  # standard deviation 100: far beyond both limits
    out = block(draw(4, 3, 8, 8))
    assert (out.min(), out.max()) == (0, 6)


@pytest.mark.parametrize(("kernel", "expansion"), [(3, 3), (3, 6), (5, 3), (5, 6)])
def test_mbconv_layers(kernel, expansion):
    """Expansion by F, depthwise with the stride, linear projection: the branch of MobileNetV2's block."""
    expand, depthwise, project = block = MBConv(4, 7, 2, kernel, expansion)
    hidden = 4 * expansion
    assert (expand.conv.kernel_size, expand.conv.stride, expand.conv.groups) == ((1, 1), (1, 1), 1)
    assert (depthwise.conv.kernel_size, depthwise.conv.stride) == ((kernel, kernel), (2, 2))
    assert depthwise.conv.groups == hidden
    assert (project.conv.kernel_size, project.conv.stride, project.conv.groups) == ((1, 1), (1, 1), 1)
    assert [layer.activation for layer in block] == ["relu", "relu", "none"]
    weights = 4 * hidden + kernel**2 * hidden + hidden * 7
    assert count(block) == weights + 2 * hidden + 2 * hidden + 2 * 7
    assert block.train()(draw(2, 4, 8, 8)).min() < 0, "a linear projection has negative outputs"


@pytest.mark.parametrize("spec", ALL_MODULES, ids=lambda spec: spec.label)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_module_fits_its_cell(spec, stride):
    cell = CellSpec(in_channels=3, out_channels=4, stride=stride, resolution=8)
    module = build_module(spec, cell)
    assert isinstance(module, BasicConv if spec.kind == "basic" else MBConv)
    assert module(draw(2, 3, 8, 8)).shape == (2, 4, 8 // stride, 8 // stride)


@pytest.mark.parametrize("module", [1, 2, 3, 4])
def test_a_lone_mbconv_is_mobilenet_v2s_block(tiny_graph, module):
    """In a cell that keeps its shape: x + MBConv(x)."""
    cell = tiny_graph.cells[2]
    assert cell.keeps_shape
    x = draw(3, cell.out_channels, 16, 16).contiguous(memory_format=torch.channels_last)
    everybody, nobody = torch.arange(3), torch.arange(0)
    indices = [everybody if m == module else nobody for m in range(5)]
    out = cell(x, indices, torch.ones(3))
    torch.testing.assert_close(out, x + cell.options[module](x), rtol=1e-5, atol=1e-5)
