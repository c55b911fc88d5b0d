"""Equation (2), R_A and the window that falls: golden values with their arithmetic, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instanas_env import paper
from instanas_env.latency import LatencyTable
from instanas_env.reward import BoundsSchedule, RewardBounds, combine, latency_reward, task_reward
from instanas_env.search_space import SearchSpace

# Every module costs 1, stem and head nothing: full 17 * 5 = 85, mobilenet_v2 17, cheapest 5 (stage starts).
UNIT = LatencyTable(SearchSpace.preset("lite"), torch.ones(17, 5, dtype=torch.float64), fixed=0.0)
FALLING = BoundsSchedule(
    upper=((1.0, "full"), (1.0, "mobilenet_v2")), best=((0.5, "full"), (1.0, "cheapest")), epochs=5
)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_latency_reward_golden_values():
    """L = 0, U = 1: gamma = 1/4 and R_A(z) = 4 z (1 - z); 0 at the ends and outside."""
    latency = tensor(0.5, 0.25, 0.75, 0.0, 1.0, -0.5, 1.5, 1e9)
    expected = [1.0, 4 * 0.25 * 0.75, 4 * 0.75 * 0.25, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert latency_reward(latency, RewardBounds(upper=1.0, lower=0.0)).tolist() == expected
    assert expected[1] == 3 / 4


def test_latency_reward_of_another_window():
    """L = 2, U = 6: gamma = ((6 - 2) / 2)^2 = 4, so R_A(3) = (6 - 3) (3 - 2) / 4."""
    assert latency_reward(tensor(3.0), RewardBounds(upper=6.0, lower=2.0)).item() == (6 - 3) * (3 - 2) / 4


def inside(bounds: RewardBounds, latency: torch.Tensor) -> torch.Tensor:
    return (latency > bounds.lower) & (latency < bounds.upper)


windows = st.tuples(st.floats(-100, 100), st.floats(1e-3, 100)).map(lambda w: RewardBounds(w[0] + w[1], w[0]))


@given(bounds=windows, percent=st.integers(0, 200))
def test_latency_reward_is_symmetric_about_the_middle(bounds, percent):
    middle, distance = (bounds.lower + bounds.upper) / 2, (bounds.upper - bounds.lower) * percent / 100
    left, right = latency_reward(tensor(middle - distance, middle + distance), bounds).tolist()
    assert left == pytest.approx(right, abs=1e-6)
    assert left == pytest.approx(max(0.0, 1 - (2 * percent / 100) ** 2), abs=1e-6)


@given(bounds=windows, percent=st.lists(st.integers(-100, 200), min_size=1))
def test_latency_reward_lies_in_0_to_1_and_is_positive_inside(bounds, percent):
    latency = bounds.lower + (bounds.upper - bounds.lower) * tensor(*percent) / 100
    rewards = latency_reward(latency, bounds)
    assert ((rewards >= 0) & (rewards <= 1 + 1e-6)).all()
    assert torch.equal(rewards > 0, inside(bounds, latency))


def test_task_reward():
    rewards = task_reward(torch.tensor([True, False]), 30.0, -10.0)
    assert rewards.tolist() == [30.0, -10.0] and rewards.dtype == torch.float64


@pytest.mark.parametrize(
    ("task", "latency", "expected"),
    [
        (30.0, 0.5, 30 * 0.5),
        (30.0, 0.0, 0.0),
        (0.25, 1.0, 0.25),
        (0.0, 0.5, 0.0),
        (-10.0, 0.5, -10.0),
        (-10.0, 0.0, -10.0),
    ],
)
def test_equation_2_golden_values(task, latency, expected):
    """R_T * R_A where R_T is positive; a wrong answer costs the same however fast it came."""
    assert combine(tensor(task), tensor(latency)).tolist() == [expected]


@pytest.mark.parametrize(
    ("upper", "lower"),
    [
        (1.0, 1.0),
        (1.0, 2.0),
        (float("inf"), 0.0),
        (float("nan"), 0.0),
        (1.0, float("nan")),
        (1.0, float("-inf")),
    ],
)
def test_a_window_needs_u_above_l(upper, lower):
    """And a finite width: gamma is the square of half of it."""
    with pytest.raises(ValueError, match="^bounds: "):
        RewardBounds(upper=upper, lower=lower)


def test_bounds_fall_linearly_and_stay():
    """Five epochs, four equal falls: U from 85 by 17 to 17, the best from 42.5 by 37.5 / 4 = 9.375 to 5.

    L = 2 best - U: 2 * 42.5 - 85 = 0, 2 * 33.125 - 68 = -1.75, ... 2 * 5 - 17 = -7.
    """
    windows = [FALLING.at(epoch, UNIT) for epoch in (0, 1, 2, 3, 4, 5, 100)]
    assert [w.upper for w in windows] == pytest.approx([85, 68, 51, 34, 17, 17, 17])
    assert [w.lower for w in windows] == pytest.approx([0, -1.75, -3.5, -5.25, -7, -7, -7])
    best = tensor(42.5, 33.125, 23.75, 14.375, 5, 5, 5)
    assert [latency_reward(z, w).item() for z, w in zip(best, windows, strict=True)] == pytest.approx([1] * 7)


def test_a_window_best_at_the_cheapest_network_golden_values():
    """U = 85, best 5: L = 2 * 5 - 85 = -75, gamma = (160 / 2)^2 = 80^2. R_A(5 + d) = 1 - (d / 80)^2.

    MobileNetV2 (17): 1 - (12 / 80)^2. The full network: 0.
    """
    window = BoundsSchedule(((1.0, "full"),) * 2, best=((1.0, "cheapest"),) * 2).at(0, UNIT)
    assert (window.upper, window.lower) == pytest.approx((85, -75))
    rewards = latency_reward(tensor(5, 17, 85), window).tolist()
    assert rewards == pytest.approx([1, 1 - (12 / 80) ** 2, 0])


def test_a_lower_end_may_be_given_instead():
    """L falls from 5 by 5/4 to 0."""
    ends = ((1.0, "cheapest"), (0.0, "full"))
    schedule = BoundsSchedule(FALLING.upper, lower=ends, best=None, epochs=5)
    lowers = [schedule.at(epoch, UNIT).lower for epoch in range(6)]
    assert lowers == pytest.approx([5, 3.75, 2.5, 1.25, 0, 0])
    for both_or_neither in ({"lower": ends, "best": ends}, {"lower": None, "best": None}):
        with pytest.raises(ValueError, match="^bounds: got lower and best, or neither"):
            BoundsSchedule(FALLING.upper, **both_or_neither)


def test_factors_multiply_the_reference():
    """Of the table that is given: all its costs ten times as high, all levels ten times as high."""
    tenfold = LatencyTable(UNIT.space, 10 * UNIT.modules, fixed=0.0)
    schedule = BoundsSchedule(upper=((0.6, "full"),) * 2, best=((2.0, "cheapest"),) * 2)
    window = schedule.at(0, UNIT)
    assert (window.upper, window.lower) == pytest.approx((0.6 * 85, 2 * 2.0 * 5 - 0.6 * 85))
    window = schedule.at(0, tenfold)
    assert (window.upper, window.lower) == pytest.approx((0.6 * 850, 2 * 2.0 * 50 - 0.6 * 850))


def test_one_epoch_starts_at_the_first_level():
    one = BoundsSchedule(FALLING.upper, best=FALLING.best, epochs=1)
    assert (one.at(0, UNIT).upper, one.at(1, UNIT).upper) == (85, 17)


def test_the_default_window_never_moves():
    """The benchmark: what half of the modules cost lies inside it."""
    windows = {BoundsSchedule().at(epoch, UNIT) for epoch in (0, 1, 50)}
    assert len(windows) == 1
    assert inside(windows.pop(), tensor(85 / 2)).all()


def test_the_paper_sized_schedule_falls_and_never_inverts():
    """The search's first window holds the first samples; its last one is the benchmark's."""
    schedule = BoundsSchedule(paper.SEARCH_UPPER, best=paper.SEARCH_BEST, epochs=10)
    windows = [schedule.at(epoch, UNIT) for epoch in range(12)]
    assert inside(windows[0], tensor(85 / 2)).all()
    uppers, lowers = [w.upper for w in windows], [w.lower for w in windows]
    assert uppers == sorted(uppers, reverse=True) and lowers == sorted(lowers, reverse=True)
    assert windows[-1] == BoundsSchedule().at(0, UNIT)


def test_a_window_that_inverts_on_the_way_is_refused():
    """L from 5 to 42.5, U from 85 to 17: they meet between epochs 3 and 4 of 0 to 4."""
    crossing = BoundsSchedule(FALLING.upper, ((1.0, "cheapest"), (0.5, "full")), None, epochs=5)
    assert crossing.at(2, UNIT) == RewardBounds(upper=51.0, lower=23.75)
    with pytest.raises(ValueError, match="bounds: got U = 17, L = 42.5"):
        crossing.at(4, UNIT)


@pytest.mark.parametrize("schedule", [FALLING, BoundsSchedule()])
def test_config_from_json(schedule):
    assert BoundsSchedule.from_config(json.loads(json.dumps(vars(schedule)))) == schedule


def test_a_single_level_stands_for_a_bound_that_does_not_move():
    short = BoundsSchedule.from_config({"upper": [0.6, "full"], "best": [2, "cheapest"]})
    assert short == BoundsSchedule(((0.6, "full"),) * 2, best=((2.0, "cheapest"),) * 2, epochs=1)
    short = BoundsSchedule.from_config({"upper": [0.6, "full"], "lower": [0, "cheapest"]})
    assert short == BoundsSchedule(((0.6, "full"),) * 2, ((0.0, "cheapest"),) * 2, None, epochs=1)


GOOD = {"upper": [0.6, "full"], "best": [1.0, "cheapest"]}


@pytest.mark.parametrize(
    "config",
    [
        None,
        5,
        "fixed",
        [0.6, 0.0],
        {},
        {"upper": [0.6, "full"]},
        {**GOOD, "epoch": 3},
        {**GOOD, "epochs": 0},
        {**GOOD, "epochs": None},
        {**GOOD, "epochs": "three"},
        {**GOOD, "epochs": 2.5},
        {**GOOD, "upper": 0.6},
        {**GOOD, "upper": None},
        {**GOOD, "upper": "full"},
        {**GOOD, "upper": []},
        {**GOOD, "upper": [0.6]},
        {**GOOD, "upper": [[0.6, "full"]]},
        {**GOOD, "upper": ["half", "full"]},
        {**GOOD, "upper": [0.6, 0.5]},
        {**GOOD, "upper": [[0.6, "full"], [0.5, "full"], [0.4, "full"]]},
        {**GOOD, "best": [[0.6, "full"], [0.5]]},
        {**GOOD, "lower": [0.0, "full"]},
    ],
    ids=str,
)
def test_malformed_configs_are_named(config):
    with pytest.raises(ValueError, match="^bounds: got "):
        BoundsSchedule.from_config(config)


def test_an_unknown_reference_is_named():
    schedule = BoundsSchedule.from_config({**GOOD, "upper": [0.6, "resnet"]})
    with pytest.raises(ValueError, match="bounds: reference: unknown 'resnet'; choose from full"):
        schedule.at(0, UNIT)
