"""Policies to compare with: one mask for all, coins, and another policy's masks shuffled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.files import load_agent
from agents.static import RandomAgent, StaticAgent
from instanas_env.callbacks import shuffle_policies
from instanas_env.seeding import generator_for
from instanas_env.storage import save_weights

IMAGES = np.zeros((6, 3, 32, 32), np.uint8)


def test_a_static_agent_gives_every_image_its_mask(tiny_space):
    """Repaired once: five cells need a module."""
    agent = StaticAgent(tiny_space, torch.zeros(17, 5, dtype=torch.bool))
    actions, state = agent.predict(IMAGES)
    assert state is None and actions.shape == (6, 85) and actions.dtype == np.int8
    assert (actions == actions[0]).all() and actions[0].sum() == 5
    assert np.array_equal(agent.predict(IMAGES[0])[0], actions[0])
    assert agent.controller is None, "choosing is free"


def test_a_random_agent_draws_for_each_image(tiny_space):
    """2,000 masks: a bit of a cell that may stay empty is on with probability 0.3, 5 sigma = 0.02."""
    many = np.zeros((2000, 3, 32, 32), np.uint8)
    masks = RandomAgent(tiny_space, keep=0.3, seed=1).predict(many)[0].reshape(-1, 17, 5)
    assert masks[:, 2].mean() == pytest.approx(0.3, abs=0.02)
    assert len(np.unique(masks.reshape(2000, -1), axis=0)) == 2000
    again = RandomAgent(tiny_space, keep=0.3, seed=1).predict(many)[0].reshape(-1, 17, 5)
    other = RandomAgent(tiny_space, keep=0.3, seed=2).predict(many)[0].reshape(-1, 17, 5)
    assert np.array_equal(again, masks) and not np.array_equal(other, masks)


@pytest.mark.parametrize("kind", ["static", "random"])
def test_what_is_saved_chooses_the_same_masks(kind, tiny_space, tmp_path):
    mask = tiny_space.random_masks(1, 0.5, generator_for(0))[0]
    agent = StaticAgent(tiny_space, mask) if kind == "static" else RandomAgent(tiny_space, 0.3, 4)
    agent.save(tmp_path / "agent.safetensors")
    expected = agent.predict(IMAGES)[0]
    for loaded in (
        load_agent(tmp_path / "agent.safetensors"),
        type(agent).load(tmp_path / "agent.safetensors"),
    ):
        assert np.array_equal(loaded.predict(IMAGES)[0], expected)


def test_an_agent_without_weights_refuses_a_file_that_has_some(tiny_space, tmp_path):
    path = tmp_path / "agent.safetensors"
    config = {"agent": "RandomAgent", "search_space": tiny_space.config, "hyperparameters": {}}
    save_weights(path, {"strange": torch.zeros(2)}, config)
    with pytest.raises(ValueError, match=r"^path: .* has weights, \['strange'\]; this agent has none"):
        RandomAgent.load(path)


def test_a_mask_of_another_space_is_refused(tiny_space):
    with pytest.raises(ValueError, match=r"^mask: got shape \(17, 4\); \(\.\.\., 85\) will do"):
        StaticAgent(tiny_space, torch.zeros(17, 4))


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 8))
def test_shuffling_between_images_keeps_the_multiset(seed, count):
    masks = torch.rand(count, 17, 5, generator=generator_for(seed, 0)) < 0.5
    shuffled = shuffle_policies(masks, generator_for(seed, 1))
    assert sorted(shuffled.flatten(1).tolist()) == sorted(masks.flatten(1).tolist())
