"""Means over seeds of a comparison's rows, with the arithmetic shown."""

from __future__ import annotations

import numpy as np
import pytest

from agents.evaluation.over_seeds import gain_interval, gains, over_seeds
from scripts.comparison.tables import pairs, table


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

    Lost when shuffled 1, 2 and 3: +- 4.3027 * 1 / sqrt(3) = 2.48.
    """
    _, ours, theirs = over_seeds(ROWS)
    assert (ours["policy"], ours["seeds"], theirs["policy"]) == ("ours, dial 0.5", 3, "theirs")
    assert ours["accuracy"] == pytest.approx((0.73, 0.73 - 0.0745, 0.73 + 0.0745), abs=1e-4)
    assert ours["lost_shuffled_accuracy"] == pytest.approx((0.02, -0.0048, 0.0448), abs=1e-4)
    assert "lost_shuffled_accuracy" not in theirs and ours["networks"] == (20, 20, 20)


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


def right_of(rows: list[dict], images: int = 100) -> list[np.ndarray]:
    """The first images of so many are right."""
    return [np.arange(images) < round(images * row["test"]["accuracy"]) for row in rows]


def named(found: list[dict]) -> dict[tuple[str, str], tuple]:
    return {(pair["policy"], pair["over"]): pair["accuracy"] for pair in found}


def test_policies_of_the_same_seeds_stand_beside_each_other_the_better_one_first():
    """Ours 70, 73, 76 of 100 images, theirs 69, 71, 73, the same ones: gains of 1, 2 and 3 images.

    Over seeds 0.01, 0.02, 0.03: +- 4.3027 * 0.01 / sqrt(3) = 0.02484. Over images: the seeds' mean is 1/3 on
    six of 100 (69; 71, 72; 73, 74, 75) and 0 on the others: deviation sqrt((6/9 - 100 * 0.0004) / 99) =
    0.07957, t of 99 degrees 1.98422, +- 0.01579. Together sqrt(0.02484^2 + 0.01579^2) = 0.02943.
    """
    rows = [row(name, seed, 0.01 * n) for name, many in (("ours", (70, 73, 76)), ("theirs", (69, 71, 73)))
            for seed, n in enumerate(many)]  # fmt: skip
    (pair,) = gains(rows, right_of(rows))
    assert (pair["policy"], pair["over"], pair["latency"]) == ("ours", "theirs", 1.0)
    assert pair["accuracy"] == pytest.approx((0.02, 0.02 - 0.02943, 0.02 + 0.02943), abs=1e-5)
    other = [row("ours", 0, 0.7), row("ours", 1, 0.7), row("theirs", 0, 0.6), row("theirs", 2, 0.6)]
    assert [pair["accuracy"][0] for pair in gains(other, right_of(other))] == [], "one seed is in both"
    other += [row("ours", 2, 0.8)]
    (pair,) = gains(other, right_of(other))
    assert pair["accuracy"][0] == pytest.approx((0.1 + 0.2) / 2), "of seeds 0 and 2"


def test_a_policy_that_chooses_stands_beside_every_network_for_all_images_whoever_is_better():
    """The reference, and what a run trained; not fixed masks on shared weights, nor other networks alone."""
    one = {"networks": 1}
    rows = [
        {**row("MobileNetV2 x 1", 0, 0.9, latency_ms=2.0, **one), "parameters": 1},
        {**row("ResNet", 0, 0.9, **one), "parameters": 1},
        {**row("cheapest path", 0, 0.5, **one), "group": "fixed"},
        {**row("random half", 0, 0.5), "group": "fixed"},
        row("rival", 0, 0.6, **one),
        row("ours", 0, 0.7),
        row("ours", 1, 0.8),
    ]
    found = gains(rows, right_of(rows), "MobileNetV2 x 1")
    assert {pair: gain[0] for pair, gain in named(found).items()} == {
        ("ours", "MobileNetV2 x 1"): pytest.approx(-0.15),
        ("ours", "rival"): pytest.approx(0.15),
    }, "a rival with one seed stands beside both"
    rows.append(row("rival", 1, 0.9, **one))
    both = named(gains(rows, right_of(rows), "MobileNetV2 x 1"))
    assert both["ours", "rival"][0] == pytest.approx(0.0) and ("rival", "ours") not in both
    assert all(low < mean < high for mean, low, high in named(found).values())
    shown = pairs(found)
    assert shown.head == ("policy", "beside", "more right, points", "time")
    assert shown.lines[0][1] == "MobileNetV2 x 1" and shown.lines[0][3] == "\N{MINUS SIGN}50 %"
