"""The lambda of a mean latency: found by bisection, and within reach whatever is asked for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.regression_controller import MARGIN, trade_off_at


def falling(trade_off: float) -> float:
    """From 3 ms without a price to 1 ms at a high one: 1 + 2 / (1 + lambda)."""
    return 1 + 2 / (1 + trade_off)


def test_golden_values():
    """2 ms at lambda 1, 1 + 2/5 = 1.4 ms at 4; bisection halves log(1e7) = 16 thirty times: to 1.5e-8."""
    assert trade_off_at(falling, 2.0) == pytest.approx(1.0, rel=1e-6)
    assert trade_off_at(falling, 1.4) == pytest.approx(4.0, rel=1e-6)


@given(latency_ms=st.floats(0.01, 100.0))
def test_beyond_reach_is_just_within(latency_ms):
    """Between 1.002 and 3 ms: asked for less or more, a hundredth of that range from its end."""
    fastest, slowest = falling(1e3), falling(1e-4)
    margin = MARGIN * (slowest - fastest)
    expected = min(max(latency_ms, fastest + margin), slowest - margin)
    assert falling(trade_off_at(falling, latency_ms)) == pytest.approx(expected, rel=1e-4)


def test_a_policy_of_few_networks_jumps():
    """1 ms from lambda 0.5 on, 3 ms below: 2 ms is not to be had, and the jump is what is found."""
    found = trade_off_at(lambda trade_off: 1.0 if trade_off >= 0.5 else 3.0, 2.0)
    assert math.isclose(found, 0.5, rel_tol=1e-6)
