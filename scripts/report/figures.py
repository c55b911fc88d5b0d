"""The figures of a comparison, from its results.json alone.

python -m scripts.report.figures --results runs/demo/results.json --out runs/demo
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from instanas_env.search_space import ALL_MODULES
from instanas_env.storage import load_json, write_atomic
from scripts.comparison.names import SHUFFLED, first_seeds, learned_rows, reference_row
from scripts.comparison.policy_table import HEAD, table_rows


@dataclass(frozen=True)
class Options:
    """What to draw and where to."""

    results: Path
    """results.json of `instanas evaluate` or `instanas demo`."""
    out: Path
    """Directory for the PNG files."""


PALETTE = (
    "#1f77b4", "#e8750c", "#2a9134", "#c8312b", "#7b54b0", "#8a5a44", "#d1559f", "#6d6d6d",
    "#14a3b5", "#a39a00", "#1b2f66", "#f0938f",
)  # fmt: skip
"""Of the groups of policies, in the order of their first rows."""


def pyplot() -> Any:
    """Matplotlib's pyplot, which then draws to files; the error says how to get it."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError('figures need matplotlib, which is an extra: pip install ".[plots]"') from error
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG and forget it."""
    picture = BytesIO()
    figure.savefig(picture, dpi=130, format="png")
    write_atomic(path, picture.getvalue())
    pyplot().close(figure)


def draw_figures(results: Path, out: Path) -> list[Path]:
    """Draw all figures; gives their paths."""
    rows = first_seeds(load_json(results)["policies"])
    learned = learned_rows(rows)
    paths = [out / "figure_frontier.png"]
    _frontier(rows, paths[0])
    if learned:
        paths += [out / f"figure_{name}.png" for name in ("latency", "modules", "map")]
        _latency_histogram(rows, learned, paths[1])
        _module_usage(learned, paths[2])
        _architecture_map(learned, paths[3])
    return paths


def draw_estimate(table: Path, out: Path) -> None:
    """Estimated against real latency of random children, from a table's own record (Figure 4)."""
    estimate = load_json(table)["record"]["estimate"]
    figure, axes = pyplot().subplots(figsize=(4.6, 4.4), layout="constrained")
    axes.scatter(estimate["estimated_ms"], estimate["real_ms"], s=10)
    top = max(estimate["real_ms"])
    axes.plot([0, top], [0, top], color="0.6", linewidth=1)
    axes.set_xlabel("estimated latency, ms (table)")
    axes.set_ylabel("real latency, ms")
    axes.set_title(f"{estimate['children']} random children, r = {estimate['correlation']:.4f}", fontsize=10)
    save(figure, out)


def _frontier(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against mean latency of all policies (Figure 6)."""
    figure, axes = pyplot().subplots(figsize=(8, 5.6), layout="constrained")
    zero = log_zero(row["latency_ms"] for row in rows)
    places = [row["latency_ms"] or zero for row in rows]
    middle = np.sqrt(min(places) * max(places))
    groups = list(dict.fromkeys(row["group"] for row in rows))
    for number, group in enumerate(groups):
        colour = PALETTE[number % len(PALETTE)]
        for shuffled in (False, True):
            members = [
                row for row in rows if row["group"] == group and row["name"].endswith(SHUFFLED) is shuffled
            ]
            if not members:
                continue
            members.sort(key=lambda row: row["latency_ms"])
            x = [row["latency_ms"] or zero for row in members]
            y = [100 * row["accuracy"] for row in members]
            low = [100 * (row["accuracy"] - row["accuracy_low"]) for row in members]
            high = [100 * (row["accuracy_high"] - row["accuracy"]) for row in members]
            axes.errorbar(
                x,
                y,
                yerr=[low, high],
                color=colour,
                alpha=0.45 if shuffled else 1.0,
                marker="x" if shuffled else "o",
                linestyle="none" if group == "fixed" else ":" if shuffled else "-",
                capsize=2,
                label=f"{group}, masks shuffled" if shuffled else group,
            )
            if group == "fixed":
                for row, at_x, at_y in zip(members, x, y, strict=True):
                    side, shift = ("right", -6) if at_x > middle else ("left", 6)
                    axes.annotate(
                        row["name"],
                        (at_x, at_y),
                        xytext=(shift, -11),
                        textcoords="offset points",
                        fontsize=8,
                        ha=side,
                    )
    axes.set_xscale("log")
    ticks = log_ticks(*axes.get_xlim())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("mean latency per image, ms (table, controller included)")
    axes.set_ylabel("accuracy, % (95 % interval)")
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)  # outside, where it covers nothing
    axes.grid(alpha=0.3)
    save(figure, path)


def log_zero(latencies: Iterable[float]) -> float:
    """Where 0 ms stands on a log axis, which has none: at half of the smallest other latency.

    A table that was fitted to few or noisy measurements may give the cheapest network 0 ms.
    """
    return min((latency for latency in latencies if latency > 0), default=1.0) / 2


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones: 1, 2, 5 times a power of ten; more digits if those are few."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)

    def within(*digits: float) -> list[float]:
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        return [tick for tick in ticks if low <= tick <= high]

    few = within(1, 2, 5)
    return few if len(few) > 2 else within(1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)


def _latency_histogram(rows: list[dict[str, Any]], learned: list[dict[str, Any]], path: Path) -> None:
    """Latencies of the networks that a controller gives its images (Figure 1)."""
    figure, grid = pyplot().subplots(
        len(learned),
        1,
        figsize=(8, 1.3 * len(learned) + 0.8),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    reference = reference_row(rows)
    top = max(network["latency_ms"] for row in learned for network in row["networks"])
    bins = np.linspace(0, 1.05 * max(top, reference["latency_ms"] if reference else 0), 70).tolist()
    for axes, row in zip(grid[:, 0], learned, strict=True):
        latencies = [network["latency_ms"] for network in row["networks"]]
        images = [network["images"] for network in row["networks"]]
        axes.hist(latencies, bins=bins, weights=images, color="C0")
        axes.set_title(row["name"], fontsize=9, loc="left")
        axes.set_ylabel("images", fontsize=8)
        if reference is not None:
            axes.axvline(reference["latency_ms"], color="C3", linestyle="--", label=reference["name"])
    if reference is not None:
        figure.legend(*grid[0, 0].get_legend_handles_labels(), fontsize=8, loc="outside lower right")
    grid[-1, 0].set_xlim(left=0)
    grid[-1, 0].set_xlabel("latency of the chosen network, ms (table)")
    save(figure, path)


def _module_usage(learned: list[dict[str, Any]], path: Path) -> None:
    """How often each module of each cell is switched on."""
    figure, grid = pyplot().subplots(
        len(learned),
        1,
        figsize=(8, 1.7 * len(learned) + 0.6),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    labels = [module.label for module in ALL_MODULES]
    num_cells = len(learned[0]["networks"][0]["mask"]) // len(labels)
    for axes, row in zip(grid[:, 0], learned, strict=True):
        masks, images, _ = arrays(row)
        usage = (masks * images[:, None]).sum(0) / images.sum()
        grid_of_modules = usage.reshape(num_cells, len(labels)).T
        picture = axes.imshow(grid_of_modules, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        axes.set_title(row["name"], fontsize=9, loc="left")
        axes.set_yticks(range(len(labels)), labels, fontsize=7)
    grid[-1, 0].set_xticks(range(num_cells), [str(cell + 1) for cell in range(num_cells)])
    grid[-1, 0].set_xlabel("cell, from stem to head")
    figure.colorbar(picture, ax=grid[:, 0].tolist(), label="share of images", shrink=0.6)
    save(figure, path)


def _architecture_map(learned: list[dict[str, Any]], path: Path) -> None:
    """The networks of each policy on a plane, coloured by latency (Figure 8); dots grow with their images."""
    columns = min(3, len(learned))
    lines = -(-len(learned) // columns)
    figure, grid = pyplot().subplots(
        lines, columns, figsize=(2.6 * columns + 1, 2.9 * lines + 0.4), squeeze=False, layout="constrained"
    )
    for axes in grid.flat[len(learned) :]:
        axes.set_axis_off()
    top = max(network["latency_ms"] for row in learned for network in row["networks"])
    for axes, row in zip(grid.flat, learned, strict=False):
        masks, images, latencies = arrays(row)
        x, y = plane(masks).T
        size = 6 + 150 * images / images.sum()
        dots = axes.scatter(x, y, s=size, c=latencies, cmap="coolwarm", vmin=0, vmax=top, alpha=0.8)
        axes.set_title(f"{row['name']}\n{number(len(masks), 'network')}", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(dots, ax=grid.ravel().tolist(), label="latency, ms")
    save(figure, path)


def number(count: int, thing: str) -> str:
    """As in "1 network" and "1,012 networks"."""
    return f"{count:,} {thing}" + ("s" if count != 1 else "")


def arrays(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks ``(n, bits)``, images ``(n,)`` and latencies ``(n,)`` of a policy's distinct networks."""
    networks = row["networks"]
    masks = np.array([[float(bit) for bit in network["mask"]] for network in networks])
    images = np.array([network["images"] for network in networks], float)
    return masks, images, np.array([network["latency_ms"] for network in networks])


def plane(masks: np.ndarray) -> np.ndarray:
    """Two coordinates ``(n, 2)`` of each mask: UMAP where it is installed (extra "umap"), else PCA."""
    if len(masks) > 15:
        try:
            from umap import UMAP
        except ImportError:
            pass
        else:
            return UMAP(random_state=0, n_jobs=1, metric="hamming").fit_transform(masks)
    centred = masks - masks.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    coordinates = left[:, :2] * values[:2]
    return np.pad(coordinates, ((0, 0), (0, 2 - coordinates.shape[1])))


def main(options: Options) -> None:
    """Draw and say where."""
    for path in draw_figures(options.results, options.out):
        print(path)


WIDTHS = (0.25, 0.08, 0.11, 0.05, 0.12, 0.07, 0.13, 0.13, 0.06)


def draw_table(rows: list[dict[str, Any]], path: Path) -> None:
    """The table as a picture, for slides."""
    lines = table_rows(rows)
    figure, axes = pyplot().subplots(figsize=(15, 0.27 * (len(lines) + 1) + 0.1), layout="constrained")
    axes.set_axis_off()
    table = axes.table(lines, colLabels=HEAD, colWidths=list(WIDTHS), bbox=(0, 0, 1, 1), edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    for (line, column), cell in table.get_celld().items():
        cell.set_edgecolor("0.8")
        cell.PAD = 0.02
        cell.set_text_props(ha="left" if column == 0 else "right", weight="bold" if line == 0 else "normal")
    save(figure, path)
