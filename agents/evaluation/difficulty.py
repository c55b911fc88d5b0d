"""Whether hard images get more: an image's latency against the loss of a network trained alone (Figure 7)."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.evaluation.over_seeds import Interval

NORMAL = 1.959964
"""Its 97.5th percentile."""


def rank_correlation(latency_ms: np.ndarray, loss: np.ndarray) -> Interval:
    """Spearman's correlation over images ``(N,)``, and its 95 % interval (Bonett and Wright, 2000).

    It is 0 where all images got the same latency.
    """
    from scipy.stats import spearmanr

    if len(loss) < 4 or not np.ptp(latency_ms) or not np.ptp(loss):
        return 0.0, None, None
    r = float(spearmanr(latency_ms, loss).statistic)
    inside = np.nextafter(1.0, 0.0)  # of -1 and 1, which have no arctanh
    centre, half = np.arctanh(np.clip(r, -inside, inside)), NORMAL * np.sqrt((1 + r**2 / 2) / (len(loss) - 3))
    return r, float(np.tanh(centre - half)), float(np.tanh(centre + half))


def difficulty(latency_ms: np.ndarray, loss: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """The rank correlation over all images, with its interval, and the mean of those within the classes.

    Args:
        latency_ms, loss, label: of each image, ``(N,)``.
    """
    r, low, high = rank_correlation(latency_ms, loss)
    classes = [label == each for each in np.unique(label)]
    within = [rank_correlation(latency_ms[own], loss[own])[0] for own in classes]
    return {
        "difficulty": r,
        "difficulty_low": low,
        "difficulty_high": high,
        "difficulty_within": float(np.mean(within)),
    }
