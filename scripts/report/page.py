"""One HTML page that needs nothing beside itself: its pictures are inside, and it has no script."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from instanas_env.search_space import ALL_MODULES
from scripts.comparison.text_table import count, milliseconds, points
from scripts.report.claim import IDEA, claim, claimed, told
from scripts.report.figures_by_image import images_shown
from scripts.report.parts import Part
from scripts.report.pictures import data_uri, saved
from scripts.report.run_files import Missing, RunFiles


def page(run: RunFiles, parts: list[Part]) -> str:
    """The whole page."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("scripts.report", "."), autoescape=True, trim_blocks=True)
    environment.filters |= {"png": lambda figure: data_uri(saved(figure, "png")), "svg": inline_svg}
    return environment.get_template("page.html.j2").render(run=run, parts=parts, **head(run))


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
        "claim": claim(row, run.content.get("seeds", [])),
        "told": told(row, run.rows),
        "cells": len(row["networks"][0]["mask"]) // len(ALL_MODULES),
        "shown": shown,
    }


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
