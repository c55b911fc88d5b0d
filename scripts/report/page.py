"""One HTML page that needs nothing beside itself: its pictures are inside, and it has no script.

At its head stands what the comparison shows, with its interval, whichever way it went.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from instanas_env.search_space import ALL_MODULES
from scripts.comparison.tables import gain_of, gains_told, reference_row
from scripts.comparison.text_table import Interval, count, difference, milliseconds, points, signed
from scripts.report.figures_by_image import images_shown
from scripts.report.parts import Part
from scripts.report.pictures import data_uri, saved
from scripts.report.run_files import Missing, RunFiles, claimed

IDEA = "Every image gets a neural network of its own"


def page(run: RunFiles, parts: list[Part]) -> str:
    """The whole page."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("scripts.report", "."), autoescape=True, trim_blocks=True)
    environment.filters |= {"png": lambda figure: data_uri(saved(figure, "png")), "svg": inline_svg}
    return environment.get_template("page.html.j2").render(
        run=run, parts=parts, gains=gains_told(run.seeds), **head(run)
    )


def head(run: RunFiles) -> dict[str, Any]:
    """What stands at the top: the claim, its figures, and images from easy to hard."""
    try:
        row = claimed(run.learned)
    except Missing:
        return {"claim": IDEA}
    try:
        shown = images_shown(*run.by_image)
    except Missing:
        shown = []
    return {
        "claim": claim(row, run.seeds),
        "told": told(row, run.rows),
        "cells": len(row["networks"][0]["mask"]) // len(ALL_MODULES),
        "shown": shown,
    }


def claim(row: dict[str, Any], seeds: list[dict[str, Any]]) -> str:
    """What the policy gains over the best single network, over seeds where there are several."""
    control = "static_with_controller_time"
    gain: Interval = (0.0, None, None)
    over = count(row["images"], "image")
    if row.get("controls"):
        gain = gain_of(row["controls"], control)
    for family in seeds:
        if family["name"] == row["name"] and control in family:
            gain, over = family[control], count(family["seeds"], "seed")
    mean, low, high = gain
    if low is None or high is None:
        return IDEA
    size = f"{abs(100 * mean):.1f} {'fewer' if mean < 0 else 'more'}"
    return (
        f"With a network of its own for every image, {size} of 100"
        " images are recognised than with the best single network that takes no longer"
        f"{', which may be chance' if low <= 0 <= high else ''}"
        f" (95 % interval over {over}: {signed(100 * low, 1)} to {signed(100 * high, 1)})"
    )


def told(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The figures behind the claim."""
    text = (
        f"The policy “{row['name']}” gives {count(row['images'], 'test image')}"
        f" {count(row['architectures'], 'network')} and recognises"
        f" {points((row['accuracy'], row['accuracy_low'], row['accuracy_high']))} % of them,"
        f" in {milliseconds(row['latency_ms'])} ms an image on average"
    )
    reference = reference_row(rows)
    if reference is None:
        return f"{text}."
    saved = difference(row["latency_ms"] / reference["latency_ms"])
    return (
        f"{text}: {saved} against {reference['name']}, which recognises {100 * reference['accuracy']:.1f} %."
    )


def inline_svg(figure: Any, rows: list[dict[str, Any]]) -> Any:
    """The frontier as part of the page: without addresses, its marks with the titles of their rows."""
    from markupsafe import Markup

    text = saved(figure, "svg").decode()
    text = re.sub(r'<metadata>.*?</metadata>| xmlns(:\w+)?="[^"]*"', "", text, flags=re.DOTALL)

    def titled(match: re.Match[str]) -> str:
        return f'<g class="mark"><title>{escape(tip(rows[int(match[1])]))}</title>'

    return Markup(re.sub(r'<g id="policy-(\d+)">', titled, text[text.index("<svg") :]))


def tip(row: dict[str, Any]) -> str:
    """What hovering over a policy tells."""
    accuracy = points((row["accuracy"], row["accuracy_low"], row["accuracy_high"]))
    networks = count(row["architectures"], "network")
    return f"{row['name']}\n{accuracy} %\n{milliseconds(row['latency_ms'])} ms\n{networks}"
