"""The baseline of each bit: by hand through whole masks, without bias, and with less variance."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from toys import dark_and_bright_envs

from agents.agent import native
from agents.reinforce import SelfCriticalReinforce, leave_one_out
from agents.table_baseline import table_baseline
from instanas_env.reward import combine, latency_reward, task_reward
from instanas_env.seeding import generator_for


@pytest.fixture(scope="module")
def bandit():
    return native(dark_and_bright_envs(1)).bandit


def reward_of(bandit, masks, correct):
    """Equation (2) of masks ``(..., num_bits)`` and answers ``(...)``, through the table's own look-up."""
    shaped = bandit.space.repair(masks.unflatten(-1, (17, 5)))
    in_window = latency_reward(bandit.cost_table.lookup(shaped), bandit.bounds)
    return combine(task_reward(correct, bandit.correct_reward, bandit.wrong_reward), in_window)


def test_it_is_the_mean_reward_over_each_bit(bandit):
    """Each of 85 bits is switched on and off in the whole mask, which is then repaired and looked up.

    Small masks, so that switching a bit off leaves cells empty that must not be.
    """
    masks = torch.rand(3, 2, 85, generator=generator_for(0)) < 0.15
    probabilities = torch.rand(2, 85, generator=generator_for(1), dtype=torch.float64)
    correct = torch.rand(3, 2, generator=generator_for(2), dtype=torch.float64)
    given = table_baseline(bandit, bandit.bounds, probabilities, masks.unflatten(-1, (17, 5)), correct)
    assert given.shape == (3, 2, 85)
    for bit in range(85):
        expected = torch.zeros(3, 2, dtype=torch.float64)
        for value in (0, 1):
            changed = masks.clone()
            changed[..., bit] = bool(value)
            right, wrong = (reward_of(bandit, changed, torch.tensor(flag)) for flag in (True, False))
            share = probabilities[:, bit] if value else 1 - probabilities[:, bit]
            expected += share * (correct * right + (1 - correct) * wrong)
        assert torch.allclose(given[..., bit], expected, atol=1e-12), bit


def test_the_expected_gradient_stays_the_same(bandit):
    """All 16 actions of four bits, the others being certain; right and wrong as it comes.

    d log P(a) / d l_i = a_i - p_i, so E[R (a_i - p_i)] and E[(R - b_i) (a_i - p_i)] must be one.
    """
    free, p = [3, 20, 41, 42], torch.tensor([0.2, 0.5, 0.7, 0.9], dtype=torch.float64)
    certain = torch.rand(85, generator=generator_for(3)) < 0.3
    masks = certain.repeat(16, 1, 1)  # (16, 1, 85)
    values = torch.tensor(list(product([False, True], repeat=4)))
    masks[:, 0, free] = values
    probabilities = certain.double()
    probabilities[free] = p
    weight = torch.where(values, p, 1 - p).prod(1)
    assert weight.sum().item() == pytest.approx(1)
    right = torch.rand(16, 1, generator=generator_for(4)) < 0.5
    reward = reward_of(bandit, masks, right)
    likely = torch.full((16, 1), 0.6)
    baseline = table_baseline(
        bandit, bandit.bounds, probabilities[None], masks.unflatten(-1, (17, 5)), likely
    )
    score = values.double() - p
    plain = (weight[:, None] * reward * score).sum(0)
    with_baseline = (weight[:, None] * (reward - baseline[:, 0, free]) * score).sum(0)
    assert plain.abs().min() > 1e-4, "there is a gradient to keep"
    assert torch.allclose(with_baseline, plain, atol=1e-12)


def test_it_has_less_variance_than_the_others_reward(bandit):
    """Always right: what is left of the reward is latency, and the other 84 bits' share of it is known."""
    masks = torch.rand(4, 512, 85, generator=generator_for(5)) < 0.3
    right = torch.ones(4, 512, dtype=torch.bool)
    reward = reward_of(bandit, masks, right)
    p = torch.full((512, 85), 0.3, dtype=torch.float64)
    score = masks.double() - p
    baseline = table_baseline(bandit, bandit.bounds, p, masks.unflatten(-1, (17, 5)), right.double())
    plain = (reward - leave_one_out(reward)).unsqueeze(-1) * score
    known = (reward.unsqueeze(-1) - baseline) * score
    assert torch.allclose(known.mean((0, 1)), plain.mean((0, 1)), atol=0.02), "both estimate one gradient"
    assert known.var((0, 1)).mean() < 0.1 * plain.var((0, 1)).mean()


@pytest.mark.parametrize("samples", [1, 4])
def test_it_finds_the_window_sooner(samples):
    """Always right, so the best reward is 1, where z = (U + L) / 2; a fresh policy samples 0.44."""
    rewards = {}
    for baseline in ("masks", "table"):
        envs = dark_and_bright_envs(32)
        bandit = native(envs).bandit
        bandit._predict = lambda contexts, masks: torch.zeros(masks.shape[:-2], dtype=torch.long)
        agent = SelfCriticalReinforce(envs, baseline=baseline, samples_per_image=samples, learning_rate=1e-3)
        rewards[baseline] = [row["reward"] for row in agent.train(32 * 40)]
    assert rewards["table"][0] == rewards["masks"][0] < 0.5
    assert rewards["table"][10] > rewards["masks"][10] + 0.05
    assert rewards["table"][-1] > 0.95


def test_an_unknown_baseline_is_named():
    with pytest.raises(ValueError, match="^baseline: unknown 'value'; masks or table will do"):
        SelfCriticalReinforce(dark_and_bright_envs(1), baseline="value")
