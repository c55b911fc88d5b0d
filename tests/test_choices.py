"""The frontier and the picks on it, by hand; which file a preference means."""

from __future__ import annotations

import pytest

from agents.evaluation.picks import controller_file, is_pick, non_dominated, picks, spread
from agents.reward_regression import RewardRegression
from instanas_env.search_space import SearchSpace
from instanas_env.storage import save_json

CONTENT = {"picks": {"A": 4, "B": 2}, "prefer": {"accuracy": "A", "balanced": "A", "latency": "B"}}


def test_no_other_point_is_as_fast_and_as_accurate():
    """Point 1 is slower than 0 and no better, 3 equals 2, 4 is fastest, 5 is as fast as 4 and worse."""
    accuracy = [0.9, 0.8, 0.7, 0.7, 0.5, 0.4]
    latency = [3.0, 3.5, 2.0, 2.0, 1.0, 1.0]
    assert non_dominated(accuracy, latency) == [0, 2, 4]


def test_one_point_that_is_best_in_both_is_the_whole_frontier():
    assert non_dominated([0.9, 0.8, 0.7], [1.0, 2.0, 3.0]) == [0]
    assert non_dominated([], []) == []


def test_picks_lie_evenly_between_the_ends():
    """From 9 to 1 in four steps of 2: 9, 7, 5, 3, 1; nearest are 9, 6.8, 5.1, 3.5, 1."""
    latency = [9.0, 8.7, 6.8, 6.0, 5.1, 4.0, 3.5, 1.2, 1.0]
    assert spread(latency, 5) == [0, 2, 4, 6, 8]
    assert spread(latency, 3) == [0, 4, 8]
    assert spread(latency, 2) == [0, 8]


def test_no_point_is_picked_twice_and_none_is_left_without():
    """All but the first crowd at the fast end: 9, then targets 7, 5, 3 have but one point each to take."""
    assert spread([9.0, 1.3, 1.2, 1.1, 1.0], 5) == [0, 1, 2, 3, 4]


def test_each_place_leaves_one_for_those_behind_it():
    """Targets 9, 6.33, 3.67, 1: 8.8 for 6.33, since 8.7 is left for 3.67; then the end."""
    assert spread([9.0, 8.9, 8.8, 8.7, 1.0], 4) == [0, 2, 3, 4]


@pytest.mark.parametrize("total", [0, 1, 2, 4, 5])
def test_a_short_frontier_is_taken_whole(total):
    assert spread([float(10 - i) for i in range(total)], 5) == list(range(total))


def test_one_pick_cannot_be_spread():
    with pytest.raises(ValueError, match="^count: got 1; at least 2 will do"):
        spread([2.0, 1.0], 1)


def test_a_preference_is_a_file(tmp_path):
    save_json(tmp_path / "choices.json", CONTENT)
    expected = {"accuracy": "A", "balanced": "A", "latency": "B", "A": "A", "B": "B"}
    for prefer, letter in expected.items():
        path = tmp_path / "choices" / letter / "controller.safetensors"
        assert controller_file(tmp_path, prefer) == path
    assert controller_file(tmp_path) == tmp_path / "controller.safetensors"
    assert list(picks(tmp_path)) == ["A", "B", "accuracy", "balanced", "latency"]


def test_what_was_not_picked_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="^prefer: .* no choices.json; instanas choose --run"):
        controller_file(tmp_path, "accuracy")
    save_json(tmp_path / "choices.json", CONTENT)
    with pytest.raises(
        ValueError, match="^prefer: .* no pick 'E'; choose from A, B, accuracy, balanced, lat"
    ):
        controller_file(tmp_path, "E")


def test_a_pick_is_known_by_its_file(tmp_path):
    agent = RewardRegression(None, space=SearchSpace.preset("lite"))
    for record, expected in ((None, False), ({"options": {}}, False), ({"pick": "A"}, True)):
        agent.save(tmp_path / "controller.safetensors", record)
        assert is_pick(tmp_path / "controller.safetensors") is expected
