"""Choices and the masks they stand for: modules one by one, or whole masks off a menu."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.arms import Arms, MenuArms, ModuleArms
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for

LITE = SearchSpace.preset("lite")
MENU = LITE.random_masks(4, 0.3, generator_for(0))


KINDS = {"modules": ModuleArms(LITE), "menu": MenuArms(LITE, MENU)}

kinds = st.sampled_from(list(KINDS.values()))


@given(arms=kinds, seed=st.integers(0, 2**32 - 1), flip=st.floats(0, 1))
def test_every_choice_stands_for_a_repaired_mask_of_its_latency(arms: Arms, seed, flip):
    generator = generator_for(seed)
    modules = torch.rand(17, 5, generator=generator)
    choices = [arms.random(1, 3, generator)[0], arms.best(torch.randn(3, arms.count, generator=generator))]
    choices.append(arms.explore(choices[0], flip, generator))
    for choice in choices:
        assert choice.dtype == torch.bool and choice.shape == (3, arms.count)
        masks = arms.masks(choice)
        assert torch.equal(LITE.repair(masks), masks)
        latency = (choice * arms.latencies(modules)).sum(1)
        torch.testing.assert_close(latency, (masks * modules).sum((1, 2)))


@given(arms=kinds, seed=st.integers(0, 2**32 - 1))
def test_the_best_choice_has_the_largest_surplus(arms: Arms, seed):
    """Against 50 random ones."""
    generator = generator_for(seed)
    surplus = torch.randn(1, arms.count, generator=generator)
    best = (arms.best(surplus) * surplus).sum()
    assert ((arms.random(1, 50, generator)[0] * surplus).sum(1) <= best + 1e-4).all()


@given(arms=kinds, seed=st.integers(0, 2**32 - 1))
def test_exploring_nothing_changes_nothing(arms: Arms, seed):
    choices = arms.random(1, 5, generator_for(seed))[0]
    assert torch.equal(arms.explore(choices, 0.0, generator_for(1)), choices)


def test_a_menu_is_drawn_from_evenly():
    """4,000 draws of 4: 1,000 each, 5 sigma = 140. Explored with probability 1/2, 5/8 stay (5 sigma 0.04)."""
    generator = generator_for(3)
    drawn = KINDS["menu"].random(1, 4000, generator)[0]
    assert (drawn.sum(0) - 1000).abs().max() < 140
    explored = KINDS["menu"].explore(drawn, 0.5, generator)
    assert (explored & drawn).any(1).float().mean().item() == pytest.approx(5 / 8, abs=0.04)


@given(seed=st.integers(0, 2**32 - 1), tries=st.integers(1, 9))
def test_no_image_gets_a_mask_twice_before_it_has_had_them_all(seed, tries):
    choices = KINDS["menu"].random(tries, 5, generator_for(seed))
    assert choices.shape == (tries, 5, 4) and (choices.sum(-1) == 1).all()
    counts = choices.sum(0)
    assert (counts.max(1).values - counts.min(1).values <= 1).all()


def test_a_mask_must_be_repaired_to_be_on_a_menu():
    with pytest.raises(ValueError, match="^menu: got a mask with an empty cell"):
        MenuArms(LITE, torch.zeros(1, 85))
