"""Pre-training by the sandwich rule: what is drawn, and where a meta-graph starts from."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instanas_env import paper
from instanas_env.networks.drop_path import drop_path_masks, sandwich_masks
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.networks.modules import MBConv
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for

LITE = SearchSpace.preset("lite")


@given(count=st.integers(1, 40), progress=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_masks_are_repaired(count, progress, seed):
    masks = sandwich_masks(LITE, count, progress, generator_for(seed))
    assert masks.shape == (count, 17, 5)
    assert torch.equal(LITE.repair(masks), masks)


def test_from_the_largest_to_the_smallest():
    """Of 800: the last 200 have all modules, the first 300 at most one a cell, some hardly any."""
    masks = sandwich_masks(LITE, 800, 1.0, generator_for(0))
    assert masks[600:].all() and not masks[:600].all((1, 2)).any()
    assert (masks[:300].sum(2) <= 1).all()
    assert masks[:300].sum((1, 2)).min() <= 10 and masks[:300].sum((1, 2)).max() == 17
    needed = [t for t, cell in enumerate(LITE.cells) if not cell.keeps_shape]
    shares = masks[:300, needed].double().mean((0, 1))
    assert (shares - 0.2).abs().max() < 0.04, "every module serves the smallest networks"


def test_one_mask_a_batch_is_of_every_kind_in_turn():
    """Of 400 batches about a quarter has all modules, three eighths one a cell at most."""
    generator = generator_for(0)
    masks = torch.cat([sandwich_masks(LITE, 1, 1.0, generator) for _ in range(400)])
    full = masks.all((1, 2)).double().mean().item()
    paths = (masks.sum(2) <= 1).all(1).double().mean().item()
    assert full == pytest.approx(1 / 4, abs=0.08) and paths == pytest.approx(3 / 8, abs=0.08)


@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_a_space_without_mobilenet_v2s_module_has_none_at_first(progress):
    space = LITE.only(0, 1)
    masks = sandwich_masks(space, 40, progress, generator_for(0))
    assert masks.shape == (40, 17, 2) and torch.equal(space.repair(masks), masks)
    assert masks[30:].all() and not masks[:30].all((1, 2)).any()


def test_at_first_all_cells_have_mobilenet_v2s_module():
    """But for the quarter with all modules; half way to the end of the ramp half of the cells have it."""
    masks = sandwich_masks(LITE, 800, 0.0, generator_for(0))
    assert torch.equal(masks[:600], LITE.mobilenet_v2_mask().expand(600, -1, -1))
    half = sandwich_masks(LITE, 800, paper.SANDWICH_RAMP / 2, generator_for(0))[:300]
    path = (half == LITE.mobilenet_v2_mask()).all(2).double().mean().item()
    assert path == pytest.approx(0.5 + 0.5 * 0.2 * 0.8, abs=0.05), "others draw it too, a fifth of the time"


def test_four_images_share_a_mask():
    masks = drop_path_masks(LITE, 40, 1.0, generator_for(0), "sandwich")
    assert masks.shape == (40, 17, 5)
    assert torch.equal(masks[:4], masks[:1].expand(4, -1, -1)) and not torch.equal(masks[3], masks[4])


def test_a_meta_graph_starts_from_mobilenet_v2(tiny_space, randomise_batch_norm):
    """Its path then answers as the network does; the other modules are as they were."""
    alone = randomise_batch_norm(MetaGraph(tiny_space.only(2), 10, generator_for(3)), 4)
    meta_graph = MetaGraph(tiny_space, 10, generator_for(5)).eval()
    before = meta_graph.cells[4].options[0][0].conv.weight.clone()
    meta_graph.start_from(alone)
    images = torch.randn(3, 3, 32, 32, generator=generator_for(6))
    path = tiny_space.mobilenet_v2_mask().expand(3, -1, -1)
    whole = torch.ones(3, 17, 1, dtype=torch.bool)
    with torch.inference_mode():
        torch.testing.assert_close(meta_graph(images, path), alone(images, whole))
    assert torch.equal(meta_graph.cells[4].options[0][0].conv.weight, before)


def test_other_modules_inherit_what_fits(tiny_space, randomise_batch_norm):
    """A kernel of 5 with zeros around computes what that of 3 does; of the channels those that weigh most."""
    alone = randomise_batch_norm(MetaGraph(tiny_space.only(2), 10, generator_for(3)), 4)
    meta_graph = MetaGraph(tiny_space, 10, generator_for(5)).eval()
    meta_graph.start_from(alone)
    images = torch.randn(3, 3, 32, 32, generator=generator_for(6))
    masks = torch.zeros(3, 17, 5, dtype=torch.bool)
    masks[:, :, 4] = True  # 5 x 5, as many channels
    with torch.inference_mode():
        whole = alone(images, torch.ones(3, 17, 1, dtype=torch.bool))
        torch.testing.assert_close(meta_graph(images, masks), whole)
    source, half = alone.cells[4].options[0], meta_graph.cells[4].options[3]
    weight = source[2].conv.weight.flatten(1).norm(dim=0) * source[1].bn.weight.abs()
    kept = [c for c in range(len(weight)) if (weight > weight[c]).sum() < len(half[1].bn.weight)]
    assert len(kept) == len(half[1].bn.weight) == len(weight) // 2
    assert torch.equal(half[1].bn.bias, source[1].bn.bias[kept])
    assert torch.equal(half[1].conv.weight[:, :, 1:4, 1:4], source[1].conv.weight[kept])
    assert torch.equal(half[2].conv.weight, source[2].conv.weight[:, kept])


def test_what_is_smaller_or_of_another_kind_gives_nothing():
    """F3 has no channels for F6."""
    small, large = (MBConv(8, 8, 1, 3, expansion) for expansion in (3, 6))
    before = large[0].conv.weight.clone()
    large.inherit(small)
    assert torch.equal(large[0].conv.weight, before)
    small.inherit(MBConv(8, 8, 1, 5, 3))  # the middle of a larger kernel
    assert small[1].conv.weight.shape == (24, 1, 3, 3)


def test_it_does_not_start_from_another_space(tiny_space):
    meta_graph = MetaGraph(tiny_space, 10)
    for other in (MetaGraph(LITE, 10), MetaGraph(tiny_space, 3)):
        with pytest.raises(ValueError, match="^other: got "):
            meta_graph.start_from(other)
