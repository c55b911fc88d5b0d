"""The controller's form for inference gives what the controller gives, however many images come."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from agents.controller import Controller
from instanas_env.networks.modules import fold_batch_norm
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for


@pytest.mark.parametrize("preset", ["lite", "tiny_imagenet"])  # 32 px, and 64 px to be shrunk
@pytest.mark.parametrize("channels", [(16, 32, 64), (3, 1, 2)])
def test_the_folded_controller_is_the_controller(randomise_batch_norm, preset, channels):
    space = SearchSpace.preset(preset)
    controller = Controller(space, channels, outputs=7, generator=generator_for(0))
    nn.init.normal_(controller.output.weight, generator=generator_for(1))
    randomise_batch_norm(controller, 2).eval()
    folded = fold_batch_norm(controller)
    side = space.resolution
    images = torch.randint(256, (3, 3, side, side), generator=generator_for(3), dtype=torch.uint8)
    expected = controller(images).detach()
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules()) and expected.std() > 0.1
    tolerance = {"rtol": 1e-5, "atol": 1e-5 * expected.abs().max().item()}
    torch.testing.assert_close(folded(images), expected, **tolerance)
    for once_or_twice in (folded, fold_batch_norm(folded)):
        one_by_one = torch.cat([once_or_twice(image) for image in images.split(1)])
        torch.testing.assert_close(one_by_one, expected, **tolerance)


def test_the_folded_controller_shares_no_memory(randomise_batch_norm):
    """It was taken in the middle of training: later steps must not reach it."""
    controller = Controller(SearchSpace.preset("lite"), generator=generator_for(0)).eval()
    nn.init.normal_(controller.output.weight, generator=generator_for(1))
    folded, images = fold_batch_norm(controller), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    before = folded(images)
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.zero_()
    assert torch.equal(folded(images), before) and before.std() > 0
    assert not folded.training and not any(p.requires_grad for p in folded.parameters())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_stay_as_they_are(dtype):
    """Also where their type and layout are those that the controller computes with."""
    images = torch.full((2, 3, 32, 32), 200).to(dtype).contiguous(memory_format=torch.channels_last)
    Controller(SearchSpace.preset("lite"), generator=generator_for(0)).eval()(images)
    assert (images == 200).all()
