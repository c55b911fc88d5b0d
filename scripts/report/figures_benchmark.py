"""Figures of a benchmark, from what ``benchmark.json`` holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from scripts.report.pictures import PALETTE, new_figure


def as_rows(ranked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The policies as rows of a comparison, for its frontier; intervals are over seeds."""
    rows = []
    for row in ranked:
        accuracy, low, high = row["accuracy"]
        ends = (accuracy, accuracy) if low is None else (low, high)
        figures = {"accuracy": accuracy, "latency_ms": row["latency_ms"][0]}
        figures |= dict(zip(("accuracy_low", "accuracy_high"), ends, strict=True))
        names = {"name": row["policy"], "group": row["policy"], "architectures": round(row["networks"][0])}
        rows.append({**names, **figures, "networks": None})
    return rows


def learning_curves(ranked: list[dict[str, Any]]) -> Any:
    """Mean validation reward of each learner against the answers that it had, with intervals over seeds."""
    figure, ((axes,),) = new_figure(4.4)
    for place, row in enumerate(ranked):
        if not row["curve"]:
            level = row["val_reward"][0]
            axes.axhline(level, color="0.6", linestyle=":", linewidth=1)
            axes.annotate(row["policy"], (0, level), (2, 2), textcoords="offset points", fontsize=7)
            continue
        answers, mean, low, high = np.array(row["curve"], float).T
        style = {"color": PALETTE[place % len(PALETTE)]}
        axes.plot(answers, mean, marker="o", markersize=3, label=row["policy"], **style)
        if not np.isnan(low).any():
            axes.fill_between(answers, low, high, alpha=0.15, linewidth=0, **style)
    axes.set(xlabel="answers learnt from", ylabel="mean reward")
    axes.set_xlim(left=0)
    axes.grid()
    if any(row["curve"] for row in ranked):
        figure.legend(loc="outside lower left", ncols=3)
    return figure
