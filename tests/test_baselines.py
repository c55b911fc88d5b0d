"""Policies to compare with: one mask for all, coins, and another policy's masks shuffled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.baselines import RandomAgent, StaticAgent
from agents.evaluation import shuffle_between_images
from instanas_env.seeding import generator_for

IMAGES = np.zeros((6, 3, 32, 32), np.uint8)


def test_a_static_agent_gives_every_image_its_mask(tiny_space):
    """Repaired once: seven cells need a module."""
    agent = StaticAgent(tiny_space, torch.zeros(17, 5, dtype=torch.bool))
    actions, state = agent.predict(IMAGES)
    assert state is None and actions.shape == (6, 85) and actions.dtype == np.int8
    assert (actions == actions[0]).all() and actions[0].sum() == 7
    assert np.array_equal(agent.predict(IMAGES[0])[0], actions[0])
    assert agent.controller is None, "choosing is free"


def test_a_random_agent_draws_for_each_image(tiny_space):
    """2,000 masks: a bit of a cell that may stay empty is on with probability 0.3, 5 sigma = 0.02."""
    many = np.zeros((2000, 3, 1, 1), np.uint8)
    masks = RandomAgent(tiny_space, keep=0.3, seed=1).predict(many)[0].reshape(-1, 17, 5)
    assert masks[:, 2].mean() == pytest.approx(0.3, abs=0.02)
    assert len(np.unique(masks.reshape(2000, -1), axis=0)) == 2000
    again = RandomAgent(tiny_space, keep=0.3, seed=1).predict(many)[0].reshape(-1, 17, 5)
    other = RandomAgent(tiny_space, keep=0.3, seed=2).predict(many)[0].reshape(-1, 17, 5)
    assert np.array_equal(again, masks) and not np.array_equal(other, masks)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 8))
def test_shuffling_between_images_keeps_the_multiset(seed, count):
    masks = torch.rand(count, 17, 5, generator=generator_for(seed, 0)) < 0.5
    shuffled = shuffle_between_images(masks, generator_for(seed, 1))
    assert sorted(shuffled.flatten(1).tolist()) == sorted(masks.flatten(1).tolist())
