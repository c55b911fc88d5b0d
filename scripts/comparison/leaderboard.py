"""The table of a contest, made once: for the terminal, the report's page and as Markdown."""

from __future__ import annotations

from typing import Any

from scripts.comparison.text_table import Columns, TextTable, points, signed, with_ends

NOTES = (
    "Test split; means over seeds with 95 % intervals (Student's t). Over fixed: reward beyond that of the"
    " best fixed mask on the same images; its interval is over images, paired. ms: deployed, by the table,"
    " with the controller's time. Lost shuffled: what the same masks lose when other images get them. Regret:"
    " reward that the best mask of the menu for each image would earn more. Hypervolume: of accuracy against"
    " latency, from nothing right in the time of all modules (0) to all right in no time (1). Answers: images"
    " under a mask that were learnt from, on training images; of the best fixed mask those of its search, on"
    " validation images. s: of the processor, for these."
)


COLUMNS: Columns = {
    "policy": lambda row: row["policy"],
    "seeds": lambda row: str(row["seeds"]),
    "reward": lambda row: with_ends(row["reward"], 3),
    "over fixed": lambda row: with_ends(row["over_fixed_reward"], 3) if any(row["over_fixed_reward"]) else "",
    "right, %": lambda row: points(row["accuracy"]),
    "ms": lambda row: with_ends(row["latency_ms"], 3),
    "networks": lambda row: f"{row['networks'][0]:,.0f}",
    "lost shuffled, points": lambda row: (
        points(row["lost_shuffled_accuracy"]) if row["networks"][0] > 1 else ""
    ),
    "regret": lambda row: signed(row["regret_for_image"][0], 3),
    "hypervolume": lambda row: f"{row['hypervolume'][0]:.3f}",
    "answers": lambda row: f"{row['steps']:,.0f}",
    "s": lambda row: "" if row["seconds"] is None else f"{row['seconds']:.0f}",
}
CLOCK: Columns = {"ms by the clock": lambda row: with_ends(row["clock_ms"], 3) if "clock_ms" in row else ""}


def table(ranked: list[dict[str, Any]]) -> TextTable:
    """A line for each policy; with times by the clock where there are any."""
    clocked = any("clock_ms" in row for row in ranked)
    return TextTable.of({**COLUMNS, **(CLOCK if clocked else {})}, ranked)


def searched(record: dict[str, Any]) -> str:
    """What the fixed masks took, which other policies are given."""
    answers = f"{record['search']['answers']:,} answers"
    return f"The search that found the best fixed mask and the menu took {answers}."


def markdown(record: dict[str, Any]) -> str:
    """The leaderboard as a file, from what ``benchmark.json`` holds."""
    told = ", ".join(
        f"{name.replace('_', ' ')} {record['bounds'][name]:.3f}"
        for name in ("fixed", "for_class", "for_image")
    )
    volumes = (
        f"Hypervolume of all policies together {record['hypervolume']:.3f}, of the menu's masks"
        f" {record['bounds']['hypervolume']:.3f}."
    )
    best = f"{searched(record)} Reward of the best masks: {told}. {volumes}"
    foot = [NOTES, "", best, "", f"    {record['command']}", ""]
    return "\n".join([f"# Leaderboard of {record['env']}", "", table(record["ranked"]).markdown(), *foot])
