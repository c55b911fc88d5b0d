"""Choices and the masks they stand for: modules one by one, whole masks off a menu, or parts of them."""

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


def parts() -> torch.Tensor:
    """Three ways to fill cell 14, the first with the trunk; two modules for cell 16. 3 * 2 = 6 masks."""
    menu = torch.zeros(5, 17, 5, dtype=torch.bool)
    menu[:3] = LITE.repair(menu[0])
    menu[:3, 16] = False
    menu[1, 14, 0] = menu[2, 14, 3] = True
    menu[3, 16, 0] = menu[4, 16, 2] = True
    return menu


PARTS = MenuArms(LITE, parts(), [3, 2])
KINDS = {"modules": ModuleArms(LITE), "menu": MenuArms(LITE, MENU), "parts": PARTS}

kinds = st.sampled_from(list(KINDS.values()))


@given(arms=kinds, seed=st.integers(0, 2**32 - 1), flip=st.floats(0, 1))
def test_every_choice_stands_for_a_repaired_mask_of_its_latency(arms: Arms, seed, flip):
    generator = generator_for(seed)
    modules = torch.rand(17, 5, generator=generator)
    choices = [arms.random(3, generator), arms.best(torch.randn(3, arms.count, generator=generator))]
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
    assert ((arms.random(50, generator) * surplus).sum(1) <= best + 1e-4).all()


@given(arms=kinds, seed=st.integers(0, 2**32 - 1))
def test_exploring_nothing_changes_nothing(arms: Arms, seed):
    choices = arms.random(5, generator_for(seed))
    assert torch.equal(arms.explore(choices, 0.0, generator_for(1)), choices)


def test_a_menu_is_drawn_from_evenly():
    """4,000 draws of 4: 1,000 each, 5 sigma = 140. Explored with probability 1/2, 5/8 stay (5 sigma 0.04)."""
    generator = generator_for(3)
    drawn = KINDS["menu"].random(4000, generator)
    assert (drawn.sum(0) - 1000).abs().max() < 140
    explored = KINDS["menu"].explore(drawn, 0.5, generator)
    assert (explored & drawn).any(1).float().mean().item() == pytest.approx(5 / 8, abs=0.04)


def test_one_part_of_each_group_is_taken():
    """The best of the first three is number 1, of the last two the second: cells 14 and 16 have 0 and 2."""
    choice = PARTS.best(torch.tensor([[0.0, 3.0, -1.0, 9.0, 10.0]]))
    assert choice.tolist() == [[False, True, False, False, True]]
    mask = PARTS.masks(choice)[0]
    assert mask[14].tolist() == [True, False, False, False, False]
    assert mask[16].tolist() == [False, False, True, False, False]
    assert torch.equal(mask[:13], LITE.repair(torch.zeros(17, 5, dtype=torch.bool))[:13])
    drawn = PARTS.masks(PARTS.random(200, generator_for(0)))
    assert len(drawn.unique(dim=0)) == 6, "all of them; a certain one is missed with probability (5/6)^200"


def test_what_all_masks_have_and_what_none_has():
    """Module 0 in cells 0, 1, 3, 6, 10, 13: bits 0, 5, 15, 30, 50, 65. Free: 14:0, 14:3, 16:0, 16:2."""
    always, never = PARTS.certain()
    assert always == [0, 5, 15, 30, 50, 65]
    assert sorted({*range(85)} - {*always, *never}) == [70, 73, 80, 82]
    assert KINDS["modules"].certain() == ([], [])


def test_groups_are_explored_each_by_itself():
    """Redrawn with probability 1/2: of three parts 1/2 + 1/6 = 2/3 stay, of two 3/4, both in 2/3 * 3/4 = 1/2.

    5 sigma of 4,000 draws: 0.04.
    """
    generator = generator_for(4)
    drawn = PARTS.random(4000, generator)
    kept = PARTS.explore(drawn, 0.5, generator) & drawn
    first, second = kept[:, :3].any(1), kept[:, 3:].any(1)
    shares = [flags.float().mean().item() for flags in (first, second, first & second)]
    assert shares == pytest.approx([2 / 3, 3 / 4, 1 / 2], abs=0.04)


def test_a_mask_must_be_repaired_to_be_on_a_menu():
    with pytest.raises(ValueError, match="^menu: got a mask with an empty cell"):
        MenuArms(LITE, torch.zeros(1, 85))
    empty = parts()
    empty[3] = False
    with pytest.raises(ValueError, match="^menu: got a mask with an empty cell"):
        MenuArms(LITE, empty, [3, 2])


def test_groups_must_fit_the_menu():
    for groups in ([3, 1], [5, 0], []):
        with pytest.raises(ValueError, match=r"^groups: got \[.*sum to 5, the parts"):
            MenuArms(LITE, parts(), groups)
    shared = parts()
    shared[4, 14, 3] = True
    with pytest.raises(ValueError, match="^menu: got a module that parts of two groups have"):
        MenuArms(LITE, shared, [3, 2])
