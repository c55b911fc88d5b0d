"""What a policy is worth: order, means and intervals by hand."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from agents.evaluation.clock import real_latency
from agents.evaluation.over_seeds import mean_interval
from agents.evaluation.scores import (
    Scores,
    choose_masks,
    score_masks,
    some_images,
    spread_over,
    wilson_interval,
)
from agents.reinforce import SelfCriticalReinforce
from agents.static import StaticAgent
from instanas_env.bandit import InstanceBandit, Outcome
from instanas_env.build import build_bandit
from instanas_env.callbacks import shuffle_policies
from instanas_env.data import Augmentation
from instanas_env.seeding import generator_for

N = 253
"""Images: more than one batch of 250, so that parts have to be put together."""


@pytest.fixture(scope="module")
def bandit() -> InstanceBandit:
    """With the shipped weights: an untrained meta-graph gives every image the same answer."""
    built = build_bandit(split="val")
    built.image_set = built.image_set.take(torch.arange(N))
    return built


def masks_of(bandit: InstanceBandit, count: int = N) -> Tensor:
    return bandit.space.random_masks(count, 0.3, generator_for(1))


def test_places_are_spread_over_all_classes_of_a_folder():
    """4 of 10 are 0, 10 / 4, 20 / 4 and 30 / 4, rounded down; more than there are, all."""
    assert spread_over(10, 4).tolist() == [0, 2, 5, 7]
    assert spread_over(3, 4).tolist() == [0, 1, 2]


def test_some_images_are_all_or_evenly_spaced(bandit):
    """Of 253 images 4: 0, 253 / 4 = 63, 126 and 189."""
    images = bandit.image_set.images[torch.arange(N)]
    assert torch.equal(some_images(bandit.image_set), images)
    assert torch.equal(some_images(bandit.image_set, N), images)
    assert torch.equal(some_images(bandit.image_set, 4), images[[0, 63, 126, 189]])


def test_scores_are_in_the_order_of_the_images(bandit):
    masks = masks_of(bandit)
    outcome = score_masks(bandit, masks)
    assert len(set(outcome.prediction.tolist())) > 5, "predictions tell images apart"
    assert outcome.index.tolist() == list(range(N))
    assert outcome.label.tolist() == bandit.image_set.labels.tolist()
    assert (outcome.mask == masks.numpy()).all()
    assert outcome.latency_ms.tolist() == bandit.latency_table.lookup(masks).tolist()
    for part in (slice(0, 4), slice(248, N)):
        alone = bandit.score(bandit.contexts(torch.arange(N)[part]), masks[part].flatten(1))
        assert (outcome.prediction[part] == alone.prediction).all()
        assert outcome.reward[part].tolist() == alone.reward.tolist()


def test_scoring_draws_and_changes_nothing_even_where_images_are_augmented(bandit):
    """Scores of the same masks are those of the images as they are, and the epoch goes on undisturbed."""
    augmenting = InstanceBandit(
        bandit.meta_graph, bandit.image_set, bandit.latency_table, augmentation=Augmentation()
    )
    before, masks = augmenting.state_dict(), masks_of(bandit)
    outcome = score_masks(augmenting, masks)
    assert (outcome.prediction == score_masks(bandit, masks).prediction).all()
    assert augmenting.state_dict() == before


def test_masks_are_chosen_in_the_order_of_the_images(bandit):
    agent = SelfCriticalReinforce(None, space=bandit.space)
    nn.init.normal_(agent.controller.output.weight, generator=generator_for(2))
    masks = choose_masks(agent, bandit.image_set)
    assert masks.shape == (N, 17, 5)
    assert len(masks.flatten(1).unique(dim=0)) > N // 2, "the controller looks at its images"
    for i in (0, 249, 250, N - 1):
        assert torch.equal(masks[i], agent.masks(bandit.image_set.images[i : i + 1])[0])


def test_summary_golden_values(bandit):
    """Three of four right; 1, 2, 3, 4 ms and half a ms for the controller; two images share a network."""
    scored = score_masks(
        InstanceBandit(bandit.meta_graph, bandit.image_set.take(torch.arange(4)), bandit.latency_table),
        masks_of(bandit, 3)[torch.tensor([0, 1, 0, 2])],
    )
    outcome: Outcome = replace(
        scored,
        correct=np.array([True, False, True, True]),
        latency_ms=np.array([1.0, 2.0, 3.0, 4.0]),
        reward=np.array([0.5, -1.0, 1.0, 0.25]),
    )
    row = Scores.of(outcome, controller_ms=0.5, clock_ms=7.0)
    assert (row.images, row.accuracy, row.networks) == (4, 3 / 4, 3)
    assert row.latency_ms == pytest.approx((1 + 2 + 3 + 4) / 4 + 0.5)
    assert row.reward == pytest.approx((0.5 - 1 + 1 + 0.25) / 4)
    assert row.latency_sd_ms == pytest.approx(math.sqrt((1.5**2 + 0.5**2) / 2))
    assert row.clock_ms == 7.0
    assert (row.accuracy_low, row.accuracy_high) == wilson_interval(3, 4)
    assert Scores.of(outcome).latency_ms == 2.5 and "clock_ms" not in Scores.of(outcome).known()


@pytest.mark.parametrize(("correct", "count"), [(0, 5), (5, 5), (3, 4), (700, 1000)])
def test_wilson_interval(correct, count):
    """(p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), z = 1.96."""
    p, z, n = correct / count, 1.959964, count
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = [(p + z**2 / (2 * n) + side * half) / (1 + z**2 / n) for side in (-1, 1)]
    low, high = wilson_interval(correct, count)
    assert [low, high] == pytest.approx(expected, abs=1e-6)
    assert 0 <= low <= p <= high <= 1, "or error bars would have negative lengths"


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 20))
def test_shuffling_keeps_the_multiset(seed, count):
    masks = torch.rand(count, 17, 5, generator=generator_for(seed, 0)) < 0.5
    shuffled = shuffle_policies(masks, generator_for(seed, 1))
    assert sorted(shuffled.flatten(1).tolist()) == sorted(masks.flatten(1).tolist())


def test_shuffling_gives_images_the_masks_of_others(bandit):
    masks = masks_of(bandit)
    shuffled = shuffle_policies(masks, generator_for(4))
    assert (shuffled == masks).flatten(1).all(1).sum() < 10


def test_mean_interval_of_three_seeds():
    """Mean 2, standard deviation 1, so 2 -+ 4.303 / sqrt(3), 4.303 being t(0.975) of two degrees."""
    half = 4.303 / math.sqrt(3)
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2, 2 - half, 2 + half), abs=1e-3)
    assert mean_interval([0.5, 0.5]) == (0.5, 0.5, 0.5)
    assert mean_interval([0.25])[0] == 0.25


def test_real_latency_counts_the_controller(bandit):
    """A controller that sleeps for 20 ms makes each image 20 ms slower; without one, choosing is free."""
    mask = bandit.latency_table.cheapest_mask()
    masks = mask.expand(8, -1, -1)

    def measured(controller: nn.Module | None) -> float:
        agent = StaticAgent(bandit.space, mask)
        agent.controller = controller
        return real_latency(bandit, agent, masks, generator_for(5), images=4, repetitions=5, backend="eager")

    sleeper = nn.Identity()
    sleeper.forward = lambda images: time.sleep(0.02)
    free, slow = measured(None), measured(sleeper)
    assert 0 < free < slow < math.inf
    assert slow >= 20 and slow - free > 10
    assert torch.get_num_threads() == 1


def test_an_answer_of_the_controller_takes_its_time_alone(bandit):
    """Half of the masks are empty: of these only a controller that sleeps for 20 ms is measured."""
    full = bandit.space.full_mask()
    agent = StaticAgent(bandit.space, full)
    agent.controller = nn.Identity()
    agent.controller.forward = lambda images: time.sleep(0.02)

    def measured(*masks: Tensor) -> float:
        settings = dict(images=2, repetitions=5, backend="eager")
        return real_latency(bandit, agent, torch.stack(masks), generator_for(5), **settings)

    none, half, both = (measured(*masks) for masks in ((~full, ~full), (full, ~full), (full, full)))
    assert 20 <= none < half < both


def test_real_latency_is_a_mean_over_images_not_over_networks(bandit):
    """One image in sixteen has the full network: the mean stays near the cheap one, far below half."""
    cheap, full = bandit.latency_table.cheapest_mask(), bandit.space.full_mask()
    masks = torch.stack([full] + [cheap] * 15)

    def measured(chosen: Tensor) -> float:
        agent = StaticAgent(bandit.space, cheap)
        return real_latency(bandit, agent, chosen, generator_for(6), images=16, repetitions=9)

    mixed, slow = measured(masks), measured(full[None])
    assert mixed < slow / 2
