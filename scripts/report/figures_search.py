"""Figures of searches, of their picks, of a latency table and of what a benchmark's policies learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from instanas_env.storage import load_json_lines
from scripts.report.pictures import PALETTE, new_figure

History = list[dict[str, Any]]


def load_search_history(path: Path) -> History:
    """The epochs of a search; an empty list for a history of something else (of fine-tuning, say).

    Raises:
        ValueError: a line is not JSON.
    """
    rows = load_json_lines(path)
    return [row for row in rows if "upper_ms" in row and "networks" in row.get("val", {})]


def search_course(name: str, rows: History) -> Any:
    """The falling window of section 3.3, accuracy with its control, and the number of networks, by epoch."""
    figure, grid = new_figure(5.2, 3, sharex=True)
    window, accuracy, networks = grid[:, 0]
    epochs = [row["epoch"] for row in rows]
    val = {key: [row["val"][key] for row in rows] for key in rows[0]["val"]}
    ends = [[row[key] for row in rows] for key in ("lower_ms", "upper_ms")]
    line = {"marker": "o", "markersize": 3}
    window.fill_between(epochs, *ends, color=PALETTE[2], alpha=0.15, linewidth=0, label="reward window")
    window.plot(epochs, [row["latency_ms"] for row in rows], ":", color=PALETTE[2], label="explored")
    window.plot(epochs, val["latency_ms"], color=PALETTE[2], label="policy", **line)
    window.set(title=name, ylabel="time, ms")
    accuracy.plot(epochs, [100 * a for a in val["accuracy"]], color=PALETTE[4], label="policy", **line)
    shuffled = [100 * a for a in val["shuffled_accuracy"]]
    accuracy.plot(epochs, shuffled, ":x", color=PALETTE[4], alpha=0.7, label="exchanged between images")
    accuracy.set_ylabel("accuracy, %")
    networks.plot(epochs, val["networks"], color=PALETTE[1], **line)
    networks.set(ylabel="networks", xlabel="epoch")
    networks.set_ylim(bottom=0)
    networks.xaxis.get_major_locator().set_params(integer=True)
    for axes in grid[:, 0]:
        axes.grid()
    window.legend()
    accuracy.legend()
    return figure


def choice_of_picks(name: str, content: dict[str, Any]) -> Any:
    """All controllers and settings that a search kept, the frontier, and the picks by their letters."""
    found = content["points"]

    def at(index: list[int]) -> tuple[list[float], list[float]]:
        return [found[i]["latency_ms"] for i in index], [100 * found[i]["accuracy"] for i in index]

    figure, ((axes,),) = new_figure(3.6)
    axes.scatter(*at(list(range(len(found)))), s=14, color="0.6", label="controllers and settings")
    axes.plot(*at(content["frontier"]), ".-", color=PALETTE[2], linewidth=1, label="frontier")
    axes.plot(*at(list(content["picks"].values())), "o", color=PALETTE[3], label="picks")
    for letter, i in content["picks"].items():
        place = (found[i]["latency_ms"], 100 * found[i]["accuracy"])
        axes.annotate(letter, place, (5, -12), textcoords="offset points", weight="bold")
    axes.set(title=name, xlabel="mean time of an image, ms", ylabel="accuracy on validation, %")
    axes.grid()
    axes.legend(loc="lower right")
    return figure


def estimate(record: dict[str, Any]) -> Any:
    """Estimated against real latency of random networks, from a table's own record (Figure 4)."""
    figure, ((axes,),) = new_figure(4)
    axes.scatter(record["estimated_ms"], record["real_ms"], s=10, color=PALETTE[2])
    top = max(record["real_ms"])
    axes.plot([0, top], [0, top], color="0.6", linewidth=1)
    axes.set(xlabel="time by the table, ms", ylabel="measured time, ms")
    error = f"median error {100 * record['median_relative_error']:.0f} %"
    axes.set_title(f"{record['table']}: r = {record['correlation']:.4f}, {error}")
    return figure


def learning_curves(lines: list[dict[str, Any]]) -> Any:
    """Mean validation reward of each learner against the answers that it had, with intervals over seeds."""
    figure, ((axes,),) = new_figure(4.4)
    for place, row in enumerate(lines):
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
    if any(row["curve"] for row in lines):
        figure.legend(loc="outside lower left", ncols=3)
    return figure
