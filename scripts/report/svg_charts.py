"""Charts as inline SVG: marks with a title each, which the page shows on hover, focus and touch."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from scripts.comparison.names import SHUFFLED
from scripts.report.figures import PALETTE, log_ticks, log_zero, number

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 36, 58


def frontier(rows: list[dict[str, Any]]) -> str:
    """Accuracy against mean latency of all policies, with a legend (Figures 5 and 6)."""
    zero = log_zero(row["latency_ms"] for row in rows)
    low = min(row["latency_ms"] or zero for row in rows) / 1.2
    high = max(row["latency_ms"] or zero for row in rows) * 1.2
    bottom = 100 * min(row["accuracy_low"] for row in rows) - 1
    top = 100 * max(row["accuracy_high"] for row in rows) + 1

    def x(latency_ms: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * float(np.log((latency_ms or zero) / low) / np.log(high / low))

    def y(accuracy: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (top - 100 * accuracy) / (top - bottom)

    parts = []
    for tick in log_ticks(low, high):
        parts.append(_line(x(tick), TOP, x(tick), HEIGHT - BOTTOM, "grid"))
        parts.append(_text(x(tick), HEIGHT - BOTTOM + 22, f"{tick:g}", "middle"))
    for percent in linear_ticks(bottom, top):
        at = y(percent / 100)
        parts.append(_line(LEFT, at, WIDTH - RIGHT, at, "grid"))
        parts.append(_text(LEFT - 8, at + 5, f"{percent:g}", "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "mean latency of an image, ms", "middle"))
    parts.append(_text(4, 20, "accuracy, %", "start"))

    colours = _colours(rows)
    for group, colour in colours.items():
        for shuffled in (True, False):
            members = [r for r in rows if r["group"] == group and r["name"].endswith(SHUFFLED) is shuffled]
            members.sort(key=lambda row: row["latency_ms"])
            if group != "fixed" and len(members) > 1:
                points = " ".join(f"{x(r['latency_ms']):.1f},{y(r['accuracy']):.1f}" for r in members)
                dashes = ' stroke-dasharray="3 4" opacity=".5"' if shuffled else ""
                parts.append(f'<polyline class="line" points="{points}" stroke="{colour}"{dashes}/>')
            for row in members:
                parts.append(_policy(row, x(row["latency_ms"]), y, colour, shuffled))
    for row in rows:
        if row["group"] == "fixed":
            at = x(row["latency_ms"])
            anchor, shift = ("end", -9) if at > WIDTH / 2 else ("start", 9)
            parts.append(_text(at + shift, y(row["accuracy"]) + 16, row["name"], anchor, ' class="label"'))
    legend = "".join(
        f'<li><span class="dot" style="background:{colour}"></span>{escape(group)}</li>'
        for group, colour in colours.items()
    )
    if any(row["name"].endswith(SHUFFLED) for row in rows):
        legend += "<li>&#10005; dashed: the same masks, shuffled between images</li>"
    label = f"Accuracy against mean latency, {number(len(rows), 'row')} of the table"
    picture = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return f'{picture}<ul class="legend">{legend}</ul>'


def scatter(
    points: np.ndarray,
    sizes: np.ndarray,
    colours: list[str],
    titles: list[str],
    pictures: list[list[int]],
    label: str,
) -> str:
    """A map of dots; those that have pictures (positions among the thumbnails) are outlined.

    Args:
        points: ``(n, 2)``, scaled to fill the square.
        sizes: radii ``(n,)``, in hundredths of half the square.
        colours, titles, pictures: of each dot.
        label: what the map shows, for those who cannot see it.
    """
    low, span = points.min(0), np.ptp(points, axis=0)
    square = np.where(span > 0, (points - low) / np.where(span > 0, span, 1), 0.5)
    dots = []
    # Later dots lie above earlier ones: those with pictures above those without, small above large.
    for place in np.lexsort((-sizes, np.array([bool(shown) for shown in pictures]))):
        (at_x, at_y), shown = 14 + 172 * square[place], pictures[place]
        data = f' data-i="{",".join(map(str, shown))}"' if shown else ""
        dots.append(
            f'<circle class="mark{" seen" if shown else ""}" cx="{at_x:.1f}" cy="{200 - at_y:.1f}"'
            f' r="{sizes[place]:.1f}" fill="{colours[place]}"{data}>'
            f"<title>{escape(titles[place])}</title></circle>"
        )
    return f'<svg viewBox="0 0 200 200" role="img" aria-label="{escape(label)}">{"".join(dots)}</svg>'


def linear_ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers between two others."""
    step = 10.0 ** np.floor(np.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= 8)
    return [float(tick) for tick in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]


def describe(row: dict[str, Any]) -> str:
    """What hovering over a policy tells."""
    interval = f"{100 * row['accuracy_low']:.1f} to {100 * row['accuracy_high']:.1f}"
    return (
        f"{row['name']}\n{100 * row['accuracy']:.1f} % ({interval})\n"
        f"{row['latency_ms']:.2f} ms\n{number(row['architectures'], 'network')}"
    )


def _colours(rows: list[dict[str, Any]]) -> dict[str, str]:
    groups = dict.fromkeys(row["group"] for row in rows)
    return {group: PALETTE[place % len(PALETTE)] for place, group in enumerate(groups)}


def _policy(row: dict[str, Any], at: float, y: Any, colour: str, shuffled: bool) -> str:
    """One mark: the interval, the point (a cross for a control) and a wide invisible disc to hit."""
    centre, low, high = y(row["accuracy"]), y(row["accuracy_low"]), y(row["accuracy_high"])
    caps = "".join(_line(at - 4, end, at + 4, end, "line") for end in (low, high))
    if shuffled:
        shape = f'<path class="line" d="M{at - 5:.1f} {centre - 5:.1f}l10 10m0 -10l-10 10"/>'
    else:
        shape = f'<circle cx="{at:.1f}" cy="{centre:.1f}" r="5.5" fill="{colour}" stroke="#fff"/>'
    return (
        f'<g class="mark" tabindex="0" stroke="{colour}" opacity="{0.55 if shuffled else 1}">'
        f"<title>{escape(describe(row))}</title>{_line(at, low, at, high, 'line')}{caps}{shape}"
        f'<circle class="hit" cx="{at:.1f}" cy="{centre:.1f}" r="11"/></g>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, name: str) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'
