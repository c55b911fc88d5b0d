"""Means over seeds of a comparison's rows, with the arithmetic shown."""

from __future__ import annotations

import numpy as np
import pytest

from agents.evaluation.over_seeds import gain_interval, gains, over_seeds
from scripts.comparison.tables import gains_told, table


def row(policy: str, seed: int, accuracy: float, lost: float | None = None, **more: float) -> dict:
    found = {"accuracy": accuracy, "latency_ms": 1.0, "networks": 20, **more}
    if lost is not None:
        found |= {"lost_shuffled_accuracy": lost, "over_static_accuracy": lost}
    return {"policy": policy, "seed": seed, "group": policy, "test": found}


ROWS = [
    row("MobileNetV2 x 1", 0, 0.9, accuracy_low=0.88, accuracy_high=0.92),
    # Ours comes in another order than the seeds.
    row("ours, dial 0.5", 2, 0.76, 0.03),
    row("ours, dial 0.5", 0, 0.70, 0.01),
    row("ours, dial 0.5", 1, 0.73, 0.02),
    row("theirs", 0, 0.69, accuracy_low=0.6, accuracy_high=0.7),
    row("theirs", 1, 0.71),
    row("theirs", 2, 0.73),
]


def test_means_and_intervals_golden_values():
    """70, 73, 76: mean 73, deviation 3, Student's t of 2 degrees 4.3027; so +- 4.3027 * 3 / sqrt(3) = 7.45.

    Less 69, 71 and 73 seed by seed: 1, 2 and 3; +- 4.3027 * 1 / sqrt(3) = 2.48. Lost when shuffled: the same.
    """
    _, ours, theirs = over_seeds(ROWS)
    assert (ours["policy"], ours["seeds"], theirs["policy"]) == ("ours, dial 0.5", 3, "theirs")
    assert ours["accuracy"] == pytest.approx((0.73, 0.73 - 0.0745, 0.73 + 0.0745), abs=1e-4)
    assert ours["lost_shuffled_accuracy"] == pytest.approx((0.02, -0.0048, 0.0448), abs=1e-4)
    assert "lost_shuffled_accuracy" not in theirs and ours["networks"] == (20, 20, 20)
    found = gains(ROWS)
    assert found["ours, dial 0.5", "theirs"] == pytest.approx((0.02, -0.0048, 0.0448), abs=1e-4)
    assert found["theirs", "ours, dial 0.5"] == pytest.approx((-0.02, -0.0448, 0.0048), abs=1e-4)


def test_a_gain_counts_images_and_seeds():
    """Two seeds, four images: gains 0, 0, 1, 1 and 1, 0, 1, 0, so 0.5 each; over images 0.5, 0, 1, 0.5.

    Over images: deviation sqrt(1/6) = 0.408, Student's t of 3 degrees 3.1824, +- 3.1824 * 0.408 / 2 = 0.650;
    over seeds +- 0. A third seed, 1, 1, 1, 1: over images 2/3, 1/3, 1, 2/3, deviation 0.272, +- 0.433; over
    seeds 0.5, 0.5, 1, deviation 0.289, t of 2 degrees 4.3027, +- 0.717; together sqrt(0.433^2 + 0.717^2).
    """
    two = np.array([[0.0, 0, 1, 1], [1, 0, 1, 0]])
    assert gain_interval(two) == pytest.approx((0.5, 0.5 - 0.650, 0.5 + 0.650), abs=1e-3)
    three = np.vstack([two, np.ones(4)])
    assert gain_interval(three) == pytest.approx((2 / 3, 2 / 3 - 0.838, 2 / 3 + 0.838), abs=1e-3)
    assert gain_interval(two[:1]) == pytest.approx((0.5, 0.5 - 0.919, 0.5 + 0.919), abs=1e-3)


def test_one_seed_has_the_interval_over_images_and_several_have_that_over_seeds():
    one, _, theirs = over_seeds(ROWS)
    assert one["accuracy"] == (0.9, 0.88, 0.92) and one["latency_ms"] == (1.0, None, None)
    assert theirs["accuracy"] == pytest.approx((0.71, 0.71 - 0.0497, 0.71 + 0.0497), abs=1e-4)
    assert not any(name.endswith(("_low", "_high")) for line in (one, theirs) for name in line)


def test_as_a_table_and_in_words():
    shown = table(over_seeds(ROWS))
    minus = "\N{MINUS SIGN}"
    assert shown.head == (
        "policy", "seeds", "right, %", "ms", "against MobileNetV2", "networks", "over one network, points",
        "lost shuffled, points",
    )  # fmt: skip
    alone, first, second = shown.lines
    assert first[:3] == ("ours, dial 0.5", "3", "73.0 (65.5 to 80.5)") and first[4:6] == ("0 %", "20")
    assert first[6:] == (f"2.0 ({minus}0.5 to 4.5)",) * 2 and second[6:] == alone[6:] == ("", "")
    assert gains_told(ROWS) == [f"ours, dial 0.5 over theirs: +2.0 ({minus}0.5 to 4.5) points"]


def test_policies_are_compared_with_those_of_the_same_seeds():
    assert gains([row("a", 0, 0.5), row("b, dial 0.5", 0, 0.6)]) == {}
    two = gains([row("a", 0, 0.5), row("a", 1, 0.6), *ROWS])
    assert not any("a" in pair for pair in two), "nobody else has two seeds"
    assert gains([row("a", 0, 0.5), row("a", 1, 0.6), row("b", 0, 0.5), row("b", 2, 0.6)]) == {}
