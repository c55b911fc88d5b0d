"""Figure 8 on the page: the networks of each policy on a plane, with images that got them on hover."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from scripts.comparison.image_record import ImageRecord
from scripts.report import svg_charts
from scripts.report.figures import arrays, number, plane, pyplot
from scripts.report.figures_by_image import choices_of

MAX_DOTS = 800
"""Of a map; ``figure_map.png`` has all networks."""
PICTURES_PER_DOT = 12


def architecture_maps(rows: list[dict[str, Any]], record: ImageRecord | None) -> str:
    """A map for each row, side by side where there is room, over one scale of latency."""
    latencies = [network["latency_ms"] for row in rows for network in row["networks"]]
    low, high = min(latencies), max(latencies)
    maps = "".join(_map(row, record, low, high) for row in rows)
    stops = ",".join(colours(np.linspace(0, 1, 9)))
    return (
        f'<div class="maps">{maps}</div>'
        f'<div class="scale" role="img" aria-label="Scale from {low:.2f} to {high:.2f} ms"'
        f' style="background:linear-gradient(90deg,{stops})"></div>'
        f'<div class="ends"><span>{low:.2f} ms</span><span>{high:.2f} ms</span></div>'
    )


def pictures_of_networks(row: dict[str, Any], record: ImageRecord | None) -> list[list[int]]:
    """For each network of ``row``, the positions of those thumbnails whose image got it."""
    shown: list[list[int]] = [[] for _ in row["networks"]]
    choices = None if record is None else choices_of(row, record)
    if record is not None and choices is not None:
        for thumbnail, network in enumerate(choices.network[record.sample].tolist()):
            shown[network].append(thumbnail)
    return shown


def _map(row: dict[str, Any], record: ImageRecord | None, low: float, high: float) -> str:
    masks, images, latency_ms = arrays(row)
    shown = pictures_of_networks(row, record)
    # Networks with pictures first, then those with most images.
    kept = np.lexsort((-images, np.array([not pictures for pictures in shown])))[:MAX_DOTS]
    titles = []
    for i in kept:
        title = f"{latency_ms[i]:.2f} ms, {number(int(images[i]), 'image')}"
        if len(shown[i]) > PICTURES_PER_DOT:
            title += f"; {PICTURES_PER_DOT} of them:"
        titles.append(title)
    picture = svg_charts.scatter(
        plane(masks)[kept],
        1.6 + 9 * np.sqrt(images[kept] / images.sum()),
        colours((latency_ms[kept] - low) / max(high - low, 1e-9)),
        titles,
        [shown[i][:PICTURES_PER_DOT] for i in kept],
        f"Map of the networks of {row['name']}",
    )
    count = number(len(masks), "network")
    if len(kept) < len(masks):
        count = f"{len(kept)} of {count}"
    return f"<div><h3>{escape(row['name'])}, {count}</h3>{picture}</div>"


def colours(shares: np.ndarray) -> list[str]:
    """Blue for 0 to red for 1, as in the PNG files."""
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in pyplot().get_cmap("coolwarm")(shares)]
