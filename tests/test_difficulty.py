"""Hard images get more: what the rank correlation says, and where it says nothing."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from agents.evaluation.alone import load_lone
from agents.evaluation.difficulty import difficulty, rank_correlation
from instanas_env.build import shipped
from instanas_env.data import load_images


def test_the_interval_by_hand():
    """Ranks 1 2 3 4 5 against 2 1 3 5 4: r = 1 - 6 * 4 / (5 * 24) = 0.8.

    atanh 0.8 = 1.0986, and 1.96 sqrt((1 + 0.32) / 2) = 1.5923: tanh(-0.4937) to tanh(2.6909).
    """
    latency_ms, loss = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([20.0, 10.0, 30.0, 90.0, 40.0])
    assert rank_correlation(latency_ms, loss) == pytest.approx((0.8, -0.4571, 0.9908), abs=1e-4)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Of normal pairs with r = 0.5 Spearman's correlation is 6/pi asin(0.25) = 0.4826."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        a = rng.normal(size=200)
        _, low, high = rank_correlation(a, 0.5 * a + np.sqrt(0.75) * rng.normal(size=200))
        held += low <= 0.4826 <= high
    assert held / 400 == pytest.approx(0.95, abs=0.03)


def test_a_perfect_order_has_its_ends_there():
    r, low, high = rank_correlation(np.arange(9.0), np.arange(9.0))
    assert r == pytest.approx(1.0) and low == pytest.approx(1.0) and high == pytest.approx(1.0)


def test_one_latency_for_all_images_tells_nothing():
    assert rank_correlation(np.ones(9), np.arange(9.0)) == (0.0, None, None)


def test_hard_classes_are_told_from_hard_images():
    """Class 1 is harder and gets more; within each class the easy images get more."""
    label, within = np.repeat([0, 1], 50), np.tile(np.arange(50.0), 2)
    found = difficulty(100.0 * label - within, 100.0 * label + within, label)
    assert found["difficulty"] > 0.4 and found["difficulty_low"] > 0
    assert found["difficulty_within"] == pytest.approx(-1.0)


def test_losses_are_those_of_the_network_and_go_with_its_mistakes():
    lone, images = load_lone(shipped("mobilenet_v2.safetensors")), load_images("embedded", "test")
    loss = lone.losses(images)
    with torch.no_grad():
        logits = lone.network(images.normalize(images.images[:7]))
    assert torch.allclose(loss[:7], F.cross_entropy(logits, images.labels[:7], reduction="none"), atol=1e-4)
    assert spearmanr(loss, lone.correct(images)).statistic < -0.3
