"""The parts of the report: each draws what the files of a run allow, or says what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from scripts.comparison import tables
from scripts.comparison.text_table import TextTable
from scripts.report import figures, figures_by_image, figures_search
from scripts.report.pictures import STYLE
from scripts.report.printed import beside_the_paper
from scripts.report.run_files import Missing, RunFiles


@dataclass(frozen=True)
class Part:
    """A part of the page.

    Attributes:
        name: of its place on the page.
        title, caption: plain text.
        draw: gives a table, a figure or several; raises :class:`Missing`.
        belongs: whether it has a place on the page of a run at all; a benchmark alone has little.
        figures, table: what was drawn, the figures by the names of their files.
        missing: what was not there.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[RunFiles], Any]
    belongs: Callable[[RunFiles], Any] = lambda run: run.content or not run.benchmark
    figures: dict[str, Any] = field(default_factory=dict)
    table: TextTable | None = None
    missing: Missing | None = None


PARTS = (
    Part(
        "frontier",
        "Accuracy against time (Figures 5 and 6)",
        "Higher is more often right, further left is faster. Bars are 95 % intervals: over seeds, with one"
        " seed over images; lines join the settings of one policy. MobileNetV2 is a well-known small network."
        " Hover over a mark for its numbers.",
        lambda run: figures.frontier(run.policies),
        lambda run: True,
    ),
    Part("ranking", "Leaderboard", "", lambda run: tables.table(run.ranked), lambda run: run.benchmark),
    Part(
        "curves",
        "Learning curves",
        "On validation images; bands are 95 % intervals over seeds. Dotted: policies that learn nothing.",
        lambda run: figures_search.learning_curves(run.ranked),
        lambda run: run.benchmark,
    ),
    Part("table", "All policies (Tables 1 to 3)", "", lambda run: tables.table(run.policies)),
    Part(
        "pairs",
        "Side by side",
        "Accuracy of a policy beyond that of another on the same images; its 95 % interval is over images"
        " and, where there are several, seeds (what was trained once counts as it is). Policies that choose"
        " stand beside MobileNetV2 alone and each single network that a run of this experiment trained, those"
        " with several seeds beside each other.",
        lambda run: tables.pairs(run.gains),
        lambda run: run.gains,
    ),
    Part(
        "printed",
        "Beside the paper's figures (Tables 1 to 3)",
        "Quoted figures are as printed there; networks and training are not the same. Times are in multiples"
        " of those of MobileNetV2 from the same source: the paper's on an Intel Core i5-7600, this run's of"
        " the deployed network, the controller counted in both. Brackets as in the table of all policies.",
        lambda run: beside_the_paper(run.printed, run.policies),
        lambda run: run.printed,
    ),
    Part(
        "images",
        "From easy to hard (Figure 7)",
        "Images of each class in the order of the time that they got, relative to the mean of their class;"
        " red where the answer was wrong.",
        lambda run: figures_by_image.images_by_class(*run.by_image),
    ),
    Part(
        "latency",
        "Time of the chosen networks (Figure 1)",
        "How many images got a network of which time. The controller's own time is not in it.",
        lambda run: figures.latency_histogram(run.policies, run.learned),
    ),
    Part(
        "modules",
        "Modules by depth",
        "Share of the images for which each module of each cell is switched on.",
        lambda run: figures.module_usage(run.learned),
    ),
    Part(
        "map",
        "Map of the networks (Figure 8)",
        "A dot is a network, its size the number of images that got it. Near dots share modules (UMAP where"
        " umap-learn is installed, otherwise principal components). Pictures are images that got them.",
        lambda run: figures_by_image.architecture_map(*run.by_image),
    ),
    Part(
        "search",
        "Course of the search (section 3.3)",
        "Outside the window the reward for speed is 0. Explored: mean time of the networks that were tried."
        " Policy: the controller at its best guess, on validation images.",
        lambda run: [figures_search.search_course(*each) for each in run.histories],
    ),
    Part(
        "picks",
        "Picks of a search (section 4.2)",
        "All were found on validation images.",
        lambda run: [figures_search.choice_of_picks(*each) for each in run.choices],
        lambda run: run.choices,
    ),
    Part(
        "estimate",
        "Estimated against measured time (Figure 4)",
        "The measured time of random networks against the sum over their modules in the latency table.",
        lambda run: figures_search.estimate(run.estimate),
    ),
)
"""All of them, in the order of the page."""


def drawn(run: RunFiles) -> list[Part]:
    """The parts of a run's page, with what they show."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        return [_drawn(part, run) for part in PARTS if part.belongs(run)]


def _drawn(part: Part, run: RunFiles) -> Part:
    try:
        content = part.draw(run)
    except Missing as missing:
        return replace(part, missing=missing)
    if isinstance(content, TextTable):
        return replace(part, table=content, caption=part.caption or tables.notes(content))
    if isinstance(content, list):
        return replace(part, figures={f"{part.name}_{n}": figure for n, figure in enumerate(content, 1)})
    return replace(part, figures={part.name: content})
