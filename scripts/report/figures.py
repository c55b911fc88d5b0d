"""The figures of a comparison, from the rows of its results.json; each function gives a matplotlib figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from instanas_env.search_space import ALL_MODULES
from scripts.comparison.tables import SHUFFLED, reference_row
from scripts.report.pictures import PALETTE, arrays, new_figure

Rows = list[dict[str, Any]]
LABELS = {"fixed": "fixed choices of modules", "static": "best single networks found"}
"""Names of groups of policies in the legend; others are called after their search."""


def frontier(rows: Rows) -> Any:
    """Accuracy against mean latency (Figures 5 and 6); the marks of policies are named policy-0 and so on."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    figure, ((axes,),) = new_figure(4.4)
    # A log axis has no 0: a noisy table may give the cheapest network 0 ms.
    zero = min((row["latency_ms"] for row in rows if row["latency_ms"] > 0), default=1.0) / 2
    places = {row["name"]: (row["latency_ms"] or zero, 100 * row["accuracy"]) for row in rows}
    middle = np.sqrt(min(x for x, _ in places.values()) * max(x for x, _ in places.values()))
    for colour, group in enumerate(dict.fromkeys(row["group"] for row in rows)):
        name = LABELS.get(group, group)
        for shuffled in (False, True):
            members = sorted(
                (r for r in rows if r["group"] == group and r["name"].endswith(SHUFFLED) is shuffled),
                key=lambda row: row["latency_ms"],
            )
            style = {"color": PALETTE[colour % len(PALETTE)], "alpha": 0.5 if shuffled else 1}
            if group != "fixed" and len(members) > 1:
                line = np.array([places[row["name"]] for row in members])
                axes.plot(*line.T, linestyle=":" if shuffled else "-", **style)
            for first, row in enumerate(members):
                x, y = places[row["name"]]
                low, high = 100 * row["accuracy_low"], 100 * row["accuracy_high"]
                axes.plot([x, x], [low, high], linewidth=1, **style)
                label = (f"{name}, exchanged between images" if shuffled else name) if not first else None
                marker = "x" if shuffled else "o"
                axes.plot(
                    x,
                    y,
                    marker,
                    gid=f"policy-{rows.index(row)}",
                    markersize=7,
                    zorder=4,
                    label=label,
                    **style,
                )
                if group == "fixed":
                    side, shift = ("right", -6) if x > middle else ("left", 6)
                    axes.annotate(
                        row["name"], (x, y), (shift, -10), textcoords="offset points", fontsize=8, ha=side
                    )
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    marks = {20: (1, 2, 5), 4: (1, 1.5, 2, 3, 5, 7), 2: (1, 1.2, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8)}
    fitting = [LogLocator(subs=subs) for ratio, subs in marks.items() if high > ratio * low]
    axes.xaxis.set_major_locator(fitting[0] if fitting else MaxNLocator(6))
    axes.xaxis.set_major_formatter(lambda ms, _: f"{ms:g}")
    axes.minorticks_off()
    axes.grid()
    axes.set(xlabel="mean time of an image, ms", ylabel="images recognised, %")
    names = axes.get_legend_handles_labels()[1]
    figure.legend(loc="outside lower left", ncols=2 if max(map(len, names)) < 40 else 1)
    return figure


def latency_histogram(rows: Rows, learned: Rows) -> Any:
    """Latencies of the networks that each controller gives its images (Figure 1)."""
    figure, grid = new_figure(1.5 * len(learned) + 0.8, len(learned), sharex=True)
    reference = reference_row(rows)
    top = max(network["latency_ms"] for row in learned for network in row["networks"])
    bins = np.linspace(0, 1.05 * max(top, reference["latency_ms"] if reference else 0), 50).tolist()
    for axes, row in zip(grid[:, 0], learned, strict=True):
        _, images, latency_ms = arrays(row)
        axes.hist(latency_ms, bins=bins, weights=images, color=PALETTE[2])
        axes.set(title=row["name"], ylabel="images")
        if reference is not None:
            axes.axvline(reference["latency_ms"], color=PALETTE[3], linestyle="--", label=reference["name"])
    if reference is not None:
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower right")
    grid[-1, 0].set_xlim(left=0)
    grid[-1, 0].set_xlabel("time of the chosen network, ms")
    return figure


def module_usage(learned: Rows) -> Any:
    """How often each controller switches on each module of each cell."""
    figure, grid = new_figure(1.4 * len(learned) + 0.7, len(learned), sharex=True)
    labels = [module.label for module in ALL_MODULES]
    for axes, row in zip(grid[:, 0], learned, strict=True):
        masks, images, _ = arrays(row)
        usage = (images @ masks / images.sum()).reshape(-1, len(labels)).T
        picture = axes.imshow(usage, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        axes.set_title(row["name"])
        axes.set_yticks(range(len(labels)), labels, fontsize=7)
    cells = range(usage.shape[1])
    grid[-1, 0].set_xticks(cells, [str(cell + 1) for cell in cells])
    grid[-1, 0].set_xlabel("cell, from the image to the answer")
    figure.colorbar(picture, ax=grid[:, 0].tolist(), label="share of images", shrink=0.6)
    return figure
