"""The dial of reward regression: the lambda at which a policy's networks take a given mean latency.

The larger lambda, the faster the networks; so bisection finds it, on its logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable

TRADE_OFFS = (1e-4, 1e3)  # the ends of the dial
BISECTIONS = 30
MARGIN = 0.01  # of the range of latencies, at either end


def trade_off_at(mean_ms: Callable[[float], float], latency_ms: float) -> float:
    """The lambda at which ``mean_ms``, which falls with it, is ``latency_ms``, or next to that.

    A latency beyond reach counts as one just within it, lest lambdas drawn up to there be mostly larger
    than makes a difference.

    Args:
        mean_ms: mean latency of a policy, ms, at a lambda.
        latency_ms: wanted.
    """
    slowest, fastest = (mean_ms(end) for end in TRADE_OFFS)
    margin = MARGIN * (slowest - fastest)
    target = min(max(latency_ms, fastest + margin), slowest - margin)
    low, high = (math.log(end) for end in TRADE_OFFS)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_ms(math.exp(middle)) > target else (low, middle)
    return math.exp((low + high) / 2)
