"""The parts of the report: each draws what the files of a run allow, or says what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from scripts.comparison import tables
from scripts.comparison.over_seeds import gains_told
from scripts.comparison.text_table import TextTable
from scripts.report import figures, figures_by_image
from scripts.report.figures_search import choice_of_picks, estimate, learning_curves, search_course
from scripts.report.pictures import STYLE
from scripts.report.run_files import Missing, RunFiles


@dataclass
class Part:
    """A part of the page.

    Attributes:
        name: of its place on the page.
        title, caption: plain text.
        draw: gives a table, or figures by the names of their files; raises :class:`Missing`.
        figures, table: what it gave.
        missing: what was not there.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[], dict[str, Any] | TextTable]
    figures: dict[str, Any] = field(default_factory=dict)
    table: TextTable | None = None
    missing: Missing | None = None


def drawn(run: RunFiles) -> list[Part]:
    """All parts, with what they show."""
    import matplotlib

    parts = list(_comparison(run))
    if run.content or not run.benchmark:  # a benchmark alone has nothing of the rest
        parts += [*_networks(run), *_search(run)]
    with matplotlib.rc_context(STYLE):
        for part in parts:
            try:
                content = part.draw()
            except Missing as missing:
                part.missing = missing
            else:
                if isinstance(content, TextTable):
                    part.table, part.caption = content, f"{tables.notes(content)} {part.caption}"
                else:
                    part.figures = content
    return parts


def _comparison(run: RunFiles) -> Iterator[Part]:
    """Policies beside each other."""
    yield Part(
        "frontier",
        "Accuracy against time (Figures 5 and 6)",
        "Higher is more often right, further left is faster. Bars are 95 % intervals: over seeds, with one"
        " seed over images; lines join the settings of one policy. MobileNetV2 is a well-known small network."
        " Hover over a mark for its numbers.",
        lambda: {"frontier": figures.frontier(run.policies)},
    )
    if run.benchmark:
        lines = run.benchmark["policies"]
        yield Part("ranking", "Leaderboard", "", lambda: tables.table(lines))
        yield Part(
            "curves",
            "Learning curves",
            "On validation images; bands are 95 % intervals over seeds. Dotted: policies that learn nothing.",
            lambda: {"curves": learning_curves(lines)},
        )
        if not run.content:
            return
    told = "; ".join(gains_told(run.content.get("rows", [])))
    yield Part("table", "All policies (Tables 1 to 3)", told, lambda: tables.table(run.policies))


def _networks(run: RunFiles) -> Iterator[Part]:
    """Which image got which network."""
    yield Part(
        "images",
        "From easy to hard (Figure 7)",
        "Images of each class in the order of the time that they got, relative to the mean of their class;"
        " red where the answer was wrong.",
        lambda: {"images": figures_by_image.images_by_class(*run.by_image)},
    )
    yield Part(
        "latency",
        "Time of the chosen networks (Figure 1)",
        "How many images got a network of which time. The controller's own time is not in it.",
        lambda: {"latency": figures.latency_histogram(run.policies, run.learned)},
    )
    yield Part(
        "modules",
        "Modules by depth",
        "Share of the images for which each module of each cell is switched on.",
        lambda: {"modules": figures.module_usage(run.learned)},
    )
    yield Part(
        "map",
        "Map of the networks (Figure 8)",
        "A dot is a network, its size the number of images that got it. Near dots share modules (UMAP where"
        " umap-learn is installed, otherwise principal components). Pictures are images that got them.",
        lambda: {"map": figures_by_image.architecture_map(*run.by_image)},
    )


def _search(run: RunFiles) -> Iterator[Part]:
    """How the controllers came about, and what their latencies are worth."""
    yield Part(
        "search",
        "Course of the search (section 3.3)",
        "Outside the window the reward for speed is 0. Explored: mean time of the networks that were tried."
        " Policy: the controller at its best guess, on validation images.",
        lambda: {f"search_{n}": search_course(*found) for n, found in enumerate(run.histories, 1)},
    )
    if run.choices:
        yield Part(
            "picks",
            "Picks of a search (section 4.2)",
            "All were found on validation images.",
            lambda: {f"picks_{n}": choice_of_picks(*found) for n, found in enumerate(run.choices, 1)},
        )
    yield Part(
        "estimate",
        "Estimated against measured time (Figure 4)",
        "The measured time of random networks against the sum over their modules in the latency table.",
        lambda: {"estimate": estimate(run.estimate)},
    )
