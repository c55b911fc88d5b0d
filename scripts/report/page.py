"""One HTML page that needs nothing beside itself: its pictures are inside, and it has no script.

At its head stands what the comparison shows, with its interval, whichever way it went.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from instanas_env.search_space import ALL_MODULES
from scripts.comparison.tables import reference_of, rival_pair
from scripts.comparison.text_table import count, difference, milliseconds, points, signed
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
    return environment.get_template("page.html.j2").render(run=run, parts=parts, **head(run))


def head(run: RunFiles) -> dict[str, Any]:
    """What stands at the top: the claim, its figures, and images from easy to hard."""
    try:
        row = claimed(run.learned, run.gains)
    except Missing:
        return {"claim": IDEA}
    try:
        shown = images_shown(*run.by_image)
    except Missing:
        shown = []
    (line,) = (line for line in run.policies if line["policy"] == row["policy"])
    return {
        "claim": claim(line, rival_pair(line["policy"], run.gains)),
        "told": told(line, run.policies),
        "cells": len(row["masks"][0]["mask"]) // len(ALL_MODULES),
        "shown": shown,
    }


def claim(line: dict[str, Any], rival: dict[str, Any] | None = None) -> str:
    """What the policy gains over the best single network, over seeds where there are several.

    That is its ``rival``, a pair of :func:`agents.evaluation.over_seeds.gains`, if there is one; else a fixed
    choice of modules on its own weights.
    """
    mean, low, high = line.get("over_static_accuracy", (0.0, None, None))
    if rival is not None:
        mean, low, high = rival["accuracy"]
    if low is None or high is None:
        return IDEA
    images, seeds = count(round(line["images"][0]), "image"), count(line["seeds"], "seed")
    over = images if line["seeds"] == 1 else f"{images} and {seeds}" if rival else seeds
    size = f"{abs(100 * mean):.1f}"
    equal, chance = float(size) == 0, low <= 0 <= high
    more = f"{size} {'fewer' if mean < 0 else 'more'} of 100 images are recognised than"
    return (
        "With a network of its own for every image,"
        f" {'as many images are recognised as' if equal else more}"
        " with the best single network that takes no longer"
        f"{' and was trained in the same way' if rival else ''}"
        f"{', which may be chance' if chance and not equal else ''}"
        f" (95 % interval over {over}: {signed(100 * low, 1)} to {signed(100 * high, 1)})"
    )


def told(line: dict[str, Any], lines: list[dict[str, Any]]) -> str:
    """The figures behind the claim."""
    text = (
        f"The policy “{line['policy']}” gives {count(round(line['images'][0]), 'test image')}"
        f" {count(round(line['networks'][0]), 'network')} and recognises {points(line['accuracy'])} % of"
        f" them, in {milliseconds(line['latency_ms'][0])} ms an image on average"
    )
    reference = reference_of(lines)
    if reference is None:
        return f"{text}."
    saved = difference(line["latency_ms"][0] / reference["latency_ms"][0])
    right = 100 * reference["accuracy"][0]
    return f"{text}: {saved} against {reference['policy']}, which recognises {right:.1f} %."


def inline_svg(figure: Any, lines: list[dict[str, Any]]) -> Any:
    """The frontier as part of the page: without addresses, its marks with the titles of their policies."""
    from markupsafe import Markup

    text = saved(figure, "svg").decode()
    text = re.sub(r'<metadata>.*?</metadata>| xmlns(:\w+)?="[^"]*"', "", text, flags=re.DOTALL)

    def titled(match: re.Match[str]) -> str:
        return f'<g class="mark"><title>{escape(tip(lines[int(match[1])]))}</title>'

    return Markup(re.sub(r'<g id="policy-(\d+)">', titled, text[text.index("<svg") :]))


def tip(line: dict[str, Any]) -> str:
    """What hovering over a policy tells."""
    networks = count(round(line["networks"][0]), "network")
    latency = milliseconds(line["latency_ms"][0])
    return f"{line['policy']}\n{points(line['accuracy'])} %\n{latency} ms\n{networks}"
