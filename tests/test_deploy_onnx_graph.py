"""Children as ONNX graphs give what they give in PyTorch, at any batch size."""

from __future__ import annotations

import pytest
import torch

from agents.controller import Controller
from instanas_env.deploy.onnx_graph import to_onnx
from instanas_env.deploy.profiling import time_children
from instanas_env.deploy.runtime import OnnxNetwork
from instanas_env.networks.modules import fold_batch_norm
from instanas_env.seeding import generator_for


@pytest.mark.parametrize("keep", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("batch", [1, 3])
def test_an_onnx_child_gives_the_logits_of_the_child(tiny_graph, tiny_space, keep, batch):
    generator = generator_for(1)
    child = tiny_graph.child(tiny_space.random_masks(1, keep, generator)[0])
    network = OnnxNetwork(to_onnx(child, torch.zeros(1, 3, 32, 32)))
    images = torch.randn(batch, 3, 32, 32, generator=generator)
    logits = network(images)
    assert logits.shape == (batch, tiny_graph.num_classes) and logits.std() > 0
    torch.testing.assert_close(logits, child(images), atol=1e-5, rtol=1e-5)


def test_the_controller_too(tiny_space):
    """It takes uint8 images."""
    controller = fold_batch_norm(Controller(tiny_space, generator=generator_for(0)).eval())
    images = torch.randint(256, (2, 3, 32, 32), generator=generator_for(1), dtype=torch.uint8)
    logits = OnnxNetwork(to_onnx(controller, images))(images)
    torch.testing.assert_close(logits, controller(images), atol=1e-5, rtol=1e-4)


def test_children_are_timed_with_onnxruntime(tiny_graph, tiny_space):
    masks = torch.stack([tiny_space.mobilenet_v2_mask(), tiny_space.full_mask()])
    controller = fold_batch_norm(Controller(tiny_space).eval())
    times = time_children(tiny_graph, masks, generator_for(0), 3, controller, backend="onnx")
    assert times.shape == (2,) and (times > 0).all()


def test_an_unknown_backend_is_named(tiny_graph, tiny_space):
    with pytest.raises(ValueError, match="^backend: got 'tvm' on cpu; eager, or onnx on the cpu, will do"):
        time_children(tiny_graph, tiny_space.full_mask()[None], generator_for(0), backend="tvm")
