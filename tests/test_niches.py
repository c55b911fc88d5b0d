"""A choice for each class: different, of about the latency asked for, and in an order left to chance."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.arms import MenuArms
from agents.niches import class_choices
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for

LITE = SearchSpace.preset("lite")


def nine_masks() -> MenuArms:
    """Cell 2 has module 0, 1 or none, cell 5 as well: three parts of two groups."""
    menu = torch.zeros(6, 17, 5, dtype=torch.bool)
    menu[:3] = LITE.repair(menu[0])
    menu[1, 2, 0] = menu[2, 2, 1] = menu[4, 5, 0] = menu[5, 5, 1] = True
    return MenuArms(LITE, menu, [3, 3])


def test_class_choices_golden_values():
    """Parts of 7, 8, 9 and 0, 1, 2 ms make 7, 8, 8, 9, 9, 9, 10, 10 and 11: five are within 1 of 7.6."""
    latencies = torch.tensor([7.0, 8, 9, 0, 1, 2])
    choices = class_choices(nine_masks(), latencies, 3, 7.6, generator_for(0))
    assert choices.shape == (3, 6) and len(torch.unique(choices, dim=0)) == 3
    assert sorted((choices * latencies).sum(1).tolist()) == [7, 8, 8]
    others = [class_choices(nine_masks(), latencies, 3, 7.6, generator_for(seed)) for seed in range(1, 9)]
    assert any(not torch.equal(choices, other) for other in others), "which class has which is left to chance"


@given(count=st.integers(1, 30), seed=st.integers(0, 99))
def test_all_choices_differ_if_there_are_as_many(count, seed):
    arms = nine_masks()
    choices = class_choices(arms, torch.rand(6), count, 1.0, generator_for(seed))
    assert choices.shape == (count, 6)
    assert len(torch.unique(choices, dim=0)) == min(count, 9), "nine in all"
    assert (choices.view(count, 2, 3).sum(2) == 1).all(), "one part of each group"
