"""The table of a comparison, made once: for the terminal, the report's page and as Markdown.

A line is a policy, as :func:`agents.evaluation.over_seeds.over_seeds` has it. A column that no policy has
anything in is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agents.evaluation.over_seeds import Interval
from scripts.comparison.text_table import Columns, TextTable, difference, points, signed, with_ends

Line = dict[str, Any]
TUNED, RIVAL, EXIT = "_finetuned", "fixed_alone", "_exit"
"""In the name of a run that trains a search's meta-graph on; begins that of one which trains, in the same
way, one network for all images alike; ends that of one whose controller answers what it is sure of."""


def reference_of(lines: Sequence[Line]) -> Line | None:
    """MobileNetV2, to which latencies are compared; None if the comparison left it out."""
    return next((line for line in lines if line["policy"].startswith("MobileNetV2")), None)


def rival_pair(policy: str, gains: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The pair of a policy and the network for all images alike that was trained as it was, if there is one.

    By the names that `instanas experiment` gives: x_finetuned_A and fixed_alone_x_A.
    """
    if TUNED not in policy:
        return None
    rival = f"{RIVAL}_{policy.replace(TUNED, '')}"
    return next((pair for pair in gains if (pair["policy"], pair["over"]) == (policy, rival)), None)


def _cell(figure: str, text: Callable[[Any], str], several: bool = False) -> Callable[[Line], str]:
    """A figure of a line as text; nothing where it is absent, or needs ``several`` networks."""

    def cell(line: Line) -> str:
        absent = line.get(figure) is None or (several and line["networks"][0] <= 1)
        return "" if absent else text(line[figure])

    return cell


def _long(interval: Interval) -> str:
    return with_ends(interval, 3)


COLUMNS: dict[str, tuple[Callable[[Line], str], str]] = {
    "policy": (_cell("policy", str), ""),
    "seeds": (
        _cell("seeds", str),
        "Test split; means over seeds. Brackets hold 95 % intervals: over seeds (Student's t), with one"
        " seed over images.",
    ),
    "reward": (_cell("reward", _long), ""),
    "over fixed": (
        _cell("over_fixed_reward", lambda gain: _long(gain) if any(gain) else ""),
        "Over fixed: reward beyond that of the best fixed mask on the same images; its interval is over"
        " images, paired, and seeds.",
    ),
    "right, %": (_cell("accuracy", points), ""),
    "ms": (_cell("latency_ms", _long), "ms: deployed, by the table, with the controller's time."),
    "against MobileNetV2": (_cell("against", difference), ""),
    "networks": (_cell("networks", lambda networks: f"{networks[0]:,.0f}"), ""),
    "answers itself, %": (
        _cell("answered", lambda part: points((part[0], None, None))),
        "Answers itself: images of which the controller was so sure that no network ran (early exit).",
    ),
    "over one network, points": (
        _cell("over_static_accuracy", points),
        "Over one network: accuracy beyond the best fixed choice of modules that takes no longer; 0 means"
        " that one network for all images would have done.",
    ),
    "lost shuffled, points": (
        _cell("lost_shuffled_accuracy", points, several=True),
        "Lost shuffled: what the same masks lose when other images get them; 0 means that it does not matter"
        " which image gets which.",
    ),
    "names, %": (_cell("names_accuracy", points), "Names: what the controller gets right by itself."),
    "difficulty": (
        _cell("difficulty", lambda r: with_ends(r, 2), several=True),
        "Difficulty: rank correlation between the time that an image gets and its loss in MobileNetV2 trained"
        " alone; above 0, hard images get more.",
    ),
    "oracle, %": (
        _cell("oracle_accuracy", lambda right: points((right[0], None, None))),
        "Oracle: images that at least one of the controller's most used networks gets right, so the most that"
        " choosing among them could reach.",
    ),
    "regret": (
        _cell("regret_for_image", lambda regret: signed(regret[0], 3)),
        "Regret: reward that the best mask of the menu for each image would earn more.",
    ),
    "hypervolume": (
        _cell("hypervolume", lambda volume: f"{volume[0]:.3f}"),
        "Hypervolume: of accuracy against latency, from nothing right in the time of all modules (0) to all"
        " right in no time (1).",
    ),
    "answers": (
        _cell("steps", lambda steps: f"{steps:,.0f}"),
        "Answers: images under a mask that were learnt from, on training images; of the best fixed mask those"
        " of its search, on validation images.",
    ),
    "s": (_cell("seconds", lambda seconds: f"{seconds:.0f}"), "s: of the processor, for these."),
    "ms by the clock": (_cell("clock_ms", _long), "ms by the clock: measured on some test images."),
}
"""For each column its cells, and what a reader has to know of it."""


PAIRS: Columns = {
    "policy": lambda pair: pair["policy"],
    "beside": lambda pair: pair["over"],
    "more right, points": lambda pair: points(pair["accuracy"], "+"),
    "time": lambda pair: "" if pair["latency"] is None else difference(pair["latency"]),
}


def table(lines: Sequence[Line]) -> TextTable:
    """A line for each policy."""
    if reference := reference_of(lines):
        unit = reference["latency_ms"][0]
        lines = [{**line, "against": line["latency_ms"][0] / unit} for line in lines]
    shown: Columns = {name: cell for name, (cell, _) in COLUMNS.items() if any(map(cell, lines))}
    return TextTable.of(shown, lines)


def notes(shown: TextTable) -> str:
    """What a reader has to know of its columns."""
    return " ".join(note for name in shown.head if (note := COLUMNS[name][1]))


def pairs(gains: Sequence[dict[str, Any]]) -> TextTable:
    """A line for each pair of :func:`agents.evaluation.over_seeds.gains`."""
    return TextTable.of(PAIRS, gains)


# --- the leaderboard of a benchmark -------------------------------------------------------------------


def searched(record: dict[str, Any]) -> str:
    """What the fixed masks took, which other policies are given."""
    answers = f"{record['search']['answers']:,} answers"
    return f"The search that found the best fixed mask and the menu took {answers}."


def leaderboard(record: dict[str, Any]) -> str:
    """The table as a Markdown file, from what ``benchmark.json`` holds."""
    limits, ranked = record["bounds"], table(record["policies"])
    told = ", ".join(
        f"{name.replace('_', ' ')} {limits[name]:.3f}" for name in ("fixed", "for_class", "for_image")
    )
    best = (
        f"{searched(record)} Reward of the best masks: {told}. Hypervolume of all policies together"
        f" {record['hypervolume']:.3f}, of the menu's masks {limits['hypervolume']:.3f}."
    )
    title, command = f"# Leaderboard of {record['env']}", f"    {record['command']}"
    return "\n".join([title, "", ranked.markdown(), notes(ranked), "", best, "", command, ""])
