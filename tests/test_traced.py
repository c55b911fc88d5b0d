"""Networks of torchvision in onnxruntime give what they give in PyTorch, at any batch size."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from instanas_env.deploy.onnx_graph import OnnxGraph, to_onnx
from instanas_env.deploy.runtime import OnnxNetwork
from instanas_env.networks.torchvision_networks import Architecture, Network, TorchvisionNetwork
from instanas_env.networks.traced import TracedNetwork
from instanas_env.seeding import generator_for


@pytest.mark.parametrize("name", get_args(Network))
def test_a_network_of_torchvision(name, randomise_batch_norm):
    network = TorchvisionNetwork(Architecture(name, 0.25), 10)
    folded = randomise_batch_norm(network, 1).folded()
    images = torch.randn(3, 3, 32, 32, generator=generator_for(0))
    logits = OnnxNetwork(to_onnx(folded, images[:1]))(images)
    assert logits.std() > 1e-3
    torch.testing.assert_close(logits, folded(images), atol=1e-4, rtol=1e-4)


def test_mobilenet_v2_of_torchvision():
    from torchvision.models import mobilenet_v2

    network = fuse(mobilenet_v2(num_classes=10, width_mult=0.25).eval())
    images = torch.randn(2, 3, 32, 32, generator=generator_for(0))
    graph = OnnxGraph()
    assert TracedNetwork(network, graph).write("images", images[:1]) == graph.nodes[-1].output[0]
    wrapped = nn.Module()
    wrapped.to_onnx = lambda graph, x: TracedNetwork(network, graph).write(x, images[:1])
    torch.testing.assert_close(
        OnnxNetwork(to_onnx(wrapped, images))(images), network(images), atol=1e-4, rtol=1e-4
    )


def test_a_layer_that_is_not_known_is_named():
    traced = fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.LogSoftmax(1)))
    with pytest.raises(ValueError, match="^network: got a LogSoftmax; a network with BatchNorm folded"):
        TracedNetwork(traced, OnnxGraph()).write("x", torch.zeros(1, 3, 4, 4))


def test_a_batch_norm_that_was_not_folded_is_refused(tiny_graph):
    with pytest.raises(ValueError, match="^network: got a ConvBN; a network with BatchNorm folded"):
        to_onnx(tiny_graph.cells[0].options[0], torch.zeros(1, 8, 4, 4))
