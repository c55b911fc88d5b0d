"""The figures of a comparison; each function gives a matplotlib figure.

They take lines (means over seeds) and rows of learned policies, as results.json and benchmark.json have them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from instanas_env.search_space import ALL_MODULES
from scripts.comparison.tables import reference_of
from scripts.report.pictures import PALETTE, arrays, new_figure

Rows = list[dict[str, Any]]
LABELS = {"fixed": "fixed choices of modules", "static": "best single networks found"}
"""Names of groups of policies in the legend; others are called after their search."""


def frontier(lines: Rows) -> Any:
    """Accuracy against mean latency (Figures 5 and 6); the marks of policies are named policy-0 and so on.

    A cross is a policy whose masks are exchanged between the images.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator

    figure, ((axes,),) = new_figure(4.4)
    # A log axis has no 0: a noisy table may give the cheapest network 0 ms.
    latencies_ms = [line["latency_ms"][0] for line in lines]
    zero = min((ms for ms in latencies_ms if ms > 0), default=1.0) / 2
    latencies_ms = [ms or zero for ms in latencies_ms]
    middle = np.sqrt(min(latencies_ms) * max(latencies_ms))
    groups = [str(line.get("group", line["policy"])) for line in lines]
    several = [line["networks"][0] > 1 and "shuffled_accuracy" in line for line in lines]
    crossed = [i for i, group in enumerate(groups) if several[i] and group != "fixed"]
    for colour, group in enumerate(dict.fromkeys(groups)):
        style = {"color": PALETTE[colour % len(PALETTE)]}
        members = sorted((i for i in range(len(lines)) if groups[i] == group), key=lambda i: latencies_ms[i])
        x = [latencies_ms[i] for i in members]
        accuracy = [100 * np.array(lines[i]["accuracy"], float) for i in members]
        if group != "fixed":
            axes.plot(x, [mean for mean, *_ in accuracy], **style)
            exchanged = [i for i in members if i in crossed]
            y = [100 * lines[i]["shuffled_accuracy"][0] for i in exchanged]
            axes.plot([latencies_ms[i] for i in exchanged], y, ":x", alpha=0.5, markersize=7, **style)
        for place, i in enumerate(members):
            y, low, high = accuracy[place]
            axes.plot([x[place]] * 2, [low, high], linewidth=1, **style)
            mark = {"gid": f"policy-{i}", "label": None if place else LABELS.get(group, group)}
            axes.plot(x[place], y, "o", markersize=7, zorder=4, **mark, **style)
            if group == "fixed":
                side, shift = ("right", -6) if x[place] > middle else ("left", 6)
                where = {"textcoords": "offset points", "fontsize": 8, "ha": side}
                level = 6 if place % 2 else -12  # in turns above and below, or neighbours cover each other
                axes.annotate(lines[i]["policy"], (x[place], y), (shift, level), **where)
    if crossed:
        axes.plot([], [], "x", color="0.5", label="masks exchanged between images")
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


def latency_histogram(lines: Rows, learned: Rows) -> Any:
    """Latencies of the networks that each controller gives its images (Figure 1)."""
    figure, grid = new_figure(1.5 * len(learned) + 0.8, len(learned), sharex=True)
    reference = reference_of(lines)
    limit = reference["latency_ms"][0] if reference else 0.0
    top = max(network["latency_ms"] for row in learned for network in row["masks"])
    bins = np.linspace(0, 1.05 * max(top, limit), 50).tolist()
    for axes, row in zip(grid[:, 0], learned, strict=True):
        _, images, latency_ms = arrays(row)
        axes.hist(latency_ms, bins=bins, weights=images, color=PALETTE[2])
        axes.set(title=row["policy"], ylabel="images")
        if reference is not None:
            axes.axvline(limit, color=PALETTE[3], linestyle="--", label=reference["policy"])
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
        axes.set_title(row["policy"])
        axes.set_yticks(range(len(labels)), labels, fontsize=7)
    cells = range(usage.shape[1])
    grid[-1, 0].set_xticks(cells, [str(cell + 1) for cell in cells])
    grid[-1, 0].set_xlabel("cell, from the image to the answer")
    figure.colorbar(picture, ax=grid[:, 0].tolist(), label="share of images", shrink=0.6)
    return figure
