"""Drop-path: the paper's schedule to the digit, and masks that a meta-graph can be trained on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instanas_env.networks.drop_path import drop_path_masks, drop_rate, keep_rates

PROGRESS = st.floats(0.0, 1.0)
SCHEDULES = ["paper", "spread"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("progress", "rate"),
    [
        (0.0, 0.0),
        (0.5, 0.0),
        (0.6, 0.5 * (0.6 - 0.5) / (1 - 0.5)),
        (0.75, 0.5 * (0.75 - 0.5) / (1 - 0.5)),
        (1.0, 0.5),
    ],
)
def test_paper_schedule(progress, rate):
    """Section 3.2: from the middle of pre-training, linearly, to 50 %."""
    assert drop_rate(progress, "paper") == pytest.approx(rate)
    assert drop_rate(progress) == drop_rate(progress, "paper")


@pytest.mark.parametrize(
    ("progress", "rate"), [(0.0, 0.0), (0.3, 0.9 * 0.3 / 0.6), (0.6, 0.9), (0.8, 0.9), (1.0, 0.9)]
)
def test_spread_schedule(progress, rate):
    """From the start, over the first 60 %, to 90 %."""
    assert drop_rate(progress, "spread") == pytest.approx(rate)


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(first=PROGRESS, second=PROGRESS)
def test_the_rate_never_falls_and_stays_a_probability(schedule, first, second):
    early, late = sorted((first, second))
    assert 0.0 <= drop_rate(early, schedule) <= drop_rate(late, schedule) < 1.0


@given(rate=st.floats(0.0, 0.9))
def test_keep_rates_are_in_range(rate):
    """Paper: one rate for all. Spread: between 1 - rate and 1, and not all the same."""
    assert keep_rates(50, rate, "paper", seeded()).tolist() == pytest.approx([1 - rate] * 50)
    spread = keep_rates(50, rate, "spread", seeded())
    assert spread.shape == (50,)
    assert spread.min() >= 1 - rate - 1e-6 and spread.max() <= 1.0
    assert spread.std() == pytest.approx(rate / 12**0.5, rel=0.3), "a uniform draw of that width"


def test_an_unknown_schedule_is_refused():
    """A typing error must not train for hours under another schedule."""
    with pytest.raises(ValueError, match="schedule"):
        drop_rate(0.5, "papr")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_nothing_is_dropped_at_the_start(tiny_space, schedule):
    assert drop_path_masks(tiny_space, 8, 0.0, seeded(), schedule).all()


def test_the_rate_of_the_masks_is_that_of_the_schedule(tiny_space):
    """At the end of the paper's schedule half is dropped (module 0 is not counted: repair adds to it)."""
    count = 400
    masks = drop_path_masks(tiny_space, count, 1.0, seeded(), "paper")
    deviation = (0.5 * 0.5 / (count * 17 * 4)) ** 0.5
    assert abs(masks[..., 1:].float().mean() - 0.5) < 4 * deviation


def test_spread_trains_sparse_and_dense_networks_side_by_side(tiny_space):
    on = drop_path_masks(tiny_space, 200, 1.0, seeded(), "spread").sum((1, 2))
    assert on.min() < 0.3 * 85 and on.max() > 0.9 * 85


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_per_batch_is_one_network_and_per_image_many(tiny_space, schedule):
    batch = drop_path_masks(tiny_space, 16, 0.9, seeded(), schedule, per_image=False)
    images = drop_path_masks(tiny_space, 16, 0.9, seeded(), schedule, per_image=True)
    assert batch.shape == images.shape == (16, 17, 5)
    assert torch.equal(batch, batch[:1].expand(16, -1, -1))
    assert len(images.flatten(1).unique(dim=0)) == 16


@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("schedule", SCHEDULES)
@given(seed=st.integers(0, 2**32 - 1), progress=PROGRESS)
def test_masks_are_repaired_and_determined_by_the_generator(tiny_space, schedule, per_image, seed, progress):
    masks, again = (
        drop_path_masks(tiny_space, 4, progress, seeded(seed), schedule, per_image) for _ in range(2)
    )
    assert torch.equal(tiny_space.repair(masks), masks)
    assert torch.equal(masks, again)


def test_another_seed_gives_other_masks(tiny_space):
    one, other = (drop_path_masks(tiny_space, 4, 1.0, seeded(seed)) for seed in (0, 1))
    assert not torch.equal(one, other)
