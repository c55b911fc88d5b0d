"""The picks of a search: their files and their table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.evaluation.picks import LETTERS
from agents.files import load_agent
from agents.reward_regression import RewardRegression
from scripts.comparison.text_table import Columns, TextTable, milliseconds


def save_pick(run: Path, letter: str, point: dict[str, Any]) -> None:
    """Write the controller of a pick, its dial set."""
    agent = load_agent(run / point["controller"])
    if isinstance(agent, RewardRegression):
        agent.trade_off = point["trade_off"]
    agent.save(run / "choices" / letter / "controller.safetensors", {"pick": letter, "validation": point})


def table(content: dict[str, Any]) -> TextTable:
    """A line for each pick."""
    meant = {letter: [p for p, own in content["prefer"].items() if own == letter] for letter in LETTERS}
    columns: Columns = {
        "Pick": lambda row: row["pick"],
        "Accuracy, %": lambda row: f"{100 * row['accuracy']:.1f}",
        "ms": lambda row: milliseconds(row["latency_ms"]),
        "Reward": lambda row: f"{row['reward']:.3f}",
        "Networks": lambda row: f"{row['networks']:,}",
        "Controller": lambda row: Path(row["controller"]).stem,
        "lambda": lambda row: "" if row["trade_off"] is None else f"{row['trade_off']:.3g}",
        "--prefer": lambda row: ", ".join(meant[row["pick"]]),
    }
    picked = ({**content["points"][i], "pick": letter} for letter, i in content["picks"].items())
    return TextTable.of(columns, picked)
