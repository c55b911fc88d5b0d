"""The course of joint searches (section 3.3) from their history.jsonl: falling window, accuracy, networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instanas_env.storage import load_json_lines
from scripts.report.figures import pyplot, save

History = list[dict[str, Any]]


def load_search_history(path: Path) -> History:
    """The epochs of a search; an empty list for a history of something else (of fine-tuning, say).

    Raises:
        ValueError: a line is not JSON.
    """
    rows = load_json_lines(path)
    return [row for row in rows if "upper_ms" in row and "architectures" in row.get("val", {})]


def draw_searches(searches: dict[str, History], path: Path) -> None:
    """One line of pictures a search: latency in its window, accuracy with the control, networks."""
    figure, grid = pyplot().subplots(
        len(searches),
        3,
        figsize=(9, 2.4 * len(searches) + 0.5),
        squeeze=False,
        sharex="row",
        layout="constrained",
    )
    for line, (name, rows) in zip(grid, searches.items(), strict=True):
        epochs = [row["epoch"] for row in rows]
        val = {key: [row["val"][key] for row in rows] for key in rows[0]["val"]}
        window = [[row[key] for row in rows] for key in ("lower_ms", "upper_ms")]
        line[0].fill_between(epochs, *window, color="C0", alpha=0.15, linewidth=0, label="reward window")
        line[0].plot(epochs, [row["latency_ms"] for row in rows], "C0:", label="explored")
        line[0].plot(epochs, val["latency_ms"], "C0o-", markersize=4, label="policy")
        line[0].set_ylabel(f"{name}\n\nlatency, ms", fontsize=9)
        line[1].plot(epochs, [100 * a for a in val["accuracy"]], "C2o-", markersize=4, label="its accuracy")
        shuffled = [100 * a for a in val["shuffled_accuracy"]]
        line[1].plot(epochs, shuffled, "C2x:", alpha=0.7, label="masks shuffled")
        line[1].set_ylabel("accuracy, % (validation)", fontsize=9)
        line[2].plot(epochs, val["architectures"], "C1o-", markersize=4)
        line[2].set_ylabel("networks", fontsize=9)
        line[2].set_ylim(bottom=0)
        for axes in line:
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            axes.tick_params(labelsize=8)
    for axes, title in zip(grid[0], ("window and latency", "accuracy", "distinct networks"), strict=True):
        axes.set_title(title, fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("epoch", fontsize=9)
    (handles, labels), more = (axes.get_legend_handles_labels() for axes in grid[0, :2])
    figure.legend(handles + more[0], labels + more[1], fontsize=8, loc="outside lower center", ncols=5)
    save(figure, path)
