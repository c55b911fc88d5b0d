"""Means over seeds of a comparison's rows, with the arithmetic shown."""

from __future__ import annotations

import pytest

from scripts.comparison.tables import SHUFFLED, gains_told, over_seeds, seed_table


def row(name: str, accuracy: float, shuffled: float | None = None) -> dict:
    found = {"name": name, "accuracy": accuracy, "latency_ms": 1.0, "architectures": 20}
    if shuffled is not None:
        gain = {"gain": {"difference": shuffled}}
        found["controls"] = {"shuffled": gain, "static": gain, "static_with_controller_time": gain}
    return found


ROWS = [
    row("MobileNetV2 x 1", 0.9),
    # Ours comes in another order than the seeds.
    row("ours_seed2, dial 0.5", 0.76, 0.03),
    row("ours, dial 0.5", 0.70, 0.01),
    row("ours_seed1, dial 0.5", 0.73, 0.02),
    row("ours_seed1, dial 0.5" + SHUFFLED, 0.1),
    row("theirs", 0.69),
    row("theirs_seed1", 0.71),
    row("theirs_seed2", 0.73),
]


def test_means_and_intervals_golden_values():
    """70, 73, 76: mean 73, deviation 3, Student's t of 2 degrees 4.3027; so +- 4.3027 * 3 / sqrt(3) = 7.45.

    Less 69, 71 and 73 seed by seed: 1, 2 and 3; +- 4.3027 * 1 / sqrt(3) = 2.48. Lost when shuffled: the same.
    """
    ours, theirs = over_seeds(ROWS)
    assert (ours["name"], ours["seeds"], theirs["name"]) == ("ours, dial 0.5", 3, "theirs")
    assert ours["accuracy"] == pytest.approx((0.73, 0.73 - 0.0745, 0.73 + 0.0745), abs=1e-4)
    assert ours["gains"]["theirs"] == pytest.approx((0.02, -0.0048, 0.0448), abs=1e-4)
    assert theirs["gains"]["ours, dial 0.5"] == pytest.approx((-0.02, -0.0448, 0.0048), abs=1e-4)
    assert ours["shuffled"] == pytest.approx((0.02, -0.0048, 0.0448), abs=1e-4)
    assert "shuffled" not in theirs and ours["architectures"] == (20, 20, 20)


def test_as_a_table_and_in_words():
    summary = over_seeds(ROWS)
    table = seed_table(summary)
    first, second = table.lines
    assert len(first) == len(second) == len(table.head)
    assert first[:5] == ("ours, dial 0.5", "3", "73.0 (65.5 to 80.5)", "1.00", "20")
    assert first[5:] == ("2.0 (\N{MINUS SIGN}0.5 to 4.5)",) * 2 and second[5:] == ("", "")
    assert gains_told(summary) == ["ours, dial 0.5 over theirs: +2.0 (\N{MINUS SIGN}0.5 to 4.5) points"]


def test_policies_of_one_seed_have_no_row():
    assert over_seeds([row("a", 0.5), row("b, dial 0.5", 0.6)]) == []
    two = over_seeds([row("a", 0.5), row("a_seed1", 0.6), *ROWS])
    assert two[0]["gains"] == {}, "nobody else has two seeds"
