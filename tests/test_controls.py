"""The controls of a controller: their arithmetic, and a policy whose gain is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from agents.evaluation.controls import Controls, most_used, paired_gain
from instanas_env.bandit import InstanceBandit
from instanas_env.data import load_images
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.seeding import generator_for
from instanas_env.training.epoch import predict_classes


def test_a_gain_is_the_difference_on_the_same_images():
    """Of 10 images ours is right about 7, theirs about 5, and never where ours is not: +0.2."""
    ours = np.arange(10) < 7
    theirs = np.arange(10) < 5
    gain = paired_gain(ours, theirs)
    assert gain.difference == pytest.approx(0.2)
    assert (paired_gain(theirs, ours).difference, paired_gain(ours, ours).difference) == (-gain.difference, 0)
    same = paired_gain(ours, ours)
    assert (same.low, same.high) == (0, 0)


def test_its_interval_is_the_paired_bootstrap():
    """Against scipy's, which draws image by image; both from 10,000 resamples."""
    generator = np.random.default_rng(0)
    ours = generator.random(400) < 0.8
    theirs = np.where(generator.random(400) < 0.9, ours, ~ours)
    gain = paired_gain(ours, theirs, seed=1)
    expected = bootstrap(
        (ours.astype(float) - theirs,), np.mean, n_resamples=9999, method="percentile", batch=100
    ).confidence_interval
    assert gain.low == pytest.approx(expected.low, abs=0.004)
    assert gain.high == pytest.approx(expected.high, abs=0.004)
    assert gain.low < gain.difference < gain.high
    assert paired_gain(ours, theirs, seed=1) == gain


def test_other_images_are_refused():
    with pytest.raises(ValueError, match=r"^theirs: got shape \(3,\) beside \(4,\)"):
        paired_gain(np.ones(4, bool), np.ones(3, bool))


def test_the_most_used_masks_come_first():
    a, b, c = torch.rand(3, 17, 5, generator=generator_for(0)) < 0.5
    masks = torch.stack([a, b, c, b, b, c])
    assert torch.equal(most_used(masks, 2), torch.stack([b, c]))
    assert torch.equal(most_used(masks, 9), torch.stack([b, c, a]))


@pytest.fixture(scope="module")
def two_experts(tiny_space):
    """Two masks A and B, images and labels such that A is right about the first half and B about the rest.

    Where A and B predict the same they are right about both; modules cost 1 ms, A and B as many of them.
    """
    graph = MetaGraph(tiny_space, 10, generator_for(3)).eval()
    a, b = tiny_space.path(1), tiny_space.path(4)
    few = load_images("embedded", "val").take(torch.arange(60))
    first, second = (predict_classes(graph, few, mask) for mask in (a, b))
    few = replace(few, labels=torch.where(torch.arange(60) < 30, first, second))
    assert (first != second).float().mean() > 0.3, "the experts have to differ"
    table = LatencyTable(tiny_space, torch.ones(17, 5), fixed=2.0, controller=0.5)
    masks = torch.stack([a] * 30 + [b] * 30)
    return InstanceBandit(graph, few, table), masks, first != second


def test_a_policy_that_knows_its_experts_gains_over_each(two_experts):
    """Right about all images; A alone is right where the two agree and on its half; so is B on its own.

    They are no slower than the policy (19 ms), nor is what else was ranked.
    """
    bandit, masks, differ = two_experts
    controls = Controls(bandit, bandit, [masks], masks[:1], num_masks=0, num_networks=5)
    correct = np.ones(60, bool)
    alone = {"a": 1 - differ[30:].sum().item() / 60, "b": 1 - differ[:30].sum().item() / 60}
    found = controls.of(masks, correct)
    assert found["static"]["accuracy"] == pytest.approx(max(alone.values()))
    assert found["static"]["gain"]["difference"] == pytest.approx(1 - max(alone.values()))
    assert found["static"]["latency_ms"] == 19.0
    assert found["static_with_controller_time"]["accuracy"] == pytest.approx(max(alone.values()))
    assert found["oracle"] == {
        "networks": 2,
        "images": 60,
        "any_right": 1.0,
        "best_single": pytest.approx(max(alone.values())),
        "controller": 1.0,
    }


def test_a_policy_of_one_network_gains_nothing_over_it(two_experts):
    """Its mean latency is that of the network, which is therefore no slower; rounding must not exclude it."""
    bandit, masks, _ = two_experts
    table = replace(bandit.latency_table, modules=torch.full((17, 5), 0.1, dtype=torch.float64))
    bandit = InstanceBandit(bandit.meta_graph, bandit.image_set, table)
    one = masks[:1].expand(60, -1, -1)
    right = (predict_classes(bandit.meta_graph, bandit.image_set, one) == bandit.image_set.labels).numpy()
    controls = Controls(bandit, bandit, [one], one[:1], num_masks=0)
    found = controls.of(one, right)
    assert found["static"]["gain"] == {"difference": 0.0, "low": 0.0, "high": 0.0}
    assert found["oracle"]["networks"] == 1
    assert found["oracle"]["any_right"] == found["oracle"]["best_single"] == pytest.approx(right.mean())


def test_no_static_mask_is_slower_than_the_controller(two_experts, tiny_space):
    """Two settings, at 19 ms and at 7 (five cells need a module); samples reach from one to the other."""
    bandit, masks, _ = two_experts
    emptiest = tiny_space.repair(torch.zeros_like(masks))
    controls = Controls(bandit, bandit, [masks, emptiest], masks[:1], num_masks=6, num_images=20)
    slow, fast = (controls.of(m, np.ones(60, bool)) for m in (masks, emptiest))
    assert slow["static"]["latency_ms"] <= 19 and fast["static"]["latency_ms"] == 7.0
    assert fast["static_with_controller_time"]["latency_ms"] <= 7.5
    assert slow["oracle"]["images"] == 20
    assert len(controls.search.image_set) == 60, "the best were ranked on all"


def test_numbers_that_ask_nothing_are_refused(two_experts):
    bandit, masks, _ = two_experts
    with pytest.raises(ValueError, match="^num_networks, num_images: got 0, 5; at least 1 will do"):
        Controls(bandit, bandit, [masks], masks[:1], num_networks=0, num_images=5)
