"""The examples run, and what they show is true: their agents get better."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"own_agent", "ppo", "linucb_on_the_twin"}


def test_an_agent_of_ones_own_learns():
    """From exploring 20 masks at random to the best of them."""
    means = example("own_agent")()
    assert means[-10:].mean() > means[:10].mean() + 0.02


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ppo_learns():
    before, after = example("ppo")(steps=12_288)
    assert after > before + 0.01


def test_linucb_learns_on_the_twin():
    """At least a quarter of the regret of random masks is gone; seeds 0 and 1 lose two fifths of it."""
    random, learnt = example("linucb_on_the_twin")(steps=20_000)
    assert 0 <= learnt < 0.75 * random
