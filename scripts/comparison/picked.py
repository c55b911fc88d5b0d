"""The picks of a search: their files, their table, and who a meta-graph is fine-tuned under."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.agent import Agent
from agents.early_exit import EarlyExit
from agents.evaluation.picks import LETTERS, controller_file
from agents.files import load_agent
from agents.reward_regression import RewardRegression
from agents.static import RandomAgent, StaticAgent
from instanas_env.search_space import SearchSpace
from instanas_env.training.matching import CONTROLLER
from scripts.comparison.text_table import Columns, TextTable, milliseconds


def save_pick(run: Path, letter: str, point: dict[str, Any]) -> None:
    """Write the controller of a pick, its dial set."""
    agent = load_agent(run / point["controller"])
    if isinstance(agent, RewardRegression):
        agent.trade_off = point["trade_off"]
    agent.save(run / "choices" / letter / CONTROLLER, {"pick": letter, "validation": point})


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


def fixed_agent(options: Any, space: SearchSpace) -> tuple[Path | None, Agent]:
    """Who gives the masks of fine-tuning, and the file it was read from; None for all modules.

    Args:
        options: those of `instanas finetune`.
        space: the meta-graph's.

    Raises:
        ValueError: options that do not go together, or a controller of another space.
    """
    if options.masks != "policy" and options.one_shot is not None:
        raise ValueError(
            f"masks: got {options.masks!r} with a one-shot search's mask; one or the other will do"
        )
    if options.masks == "all":
        if options.controller is not None or options.prefer is not None:
            raise ValueError("masks: got 'all' with a controller or a pick; one or the other will do")
        return None, StaticAgent(space, space.full_mask())
    if options.prefer is not None and (options.controller is not None or options.masks == "random"):
        other = "masks random" if options.controller is None else f"controller {options.controller}"
        raise ValueError(f"prefer: got {options.prefer!r} with {other}; one or the other will do")
    source = options.controller or controller_file(options.run, options.prefer)
    agent = load_agent(source)
    if isinstance(agent, RandomAgent):
        raise ValueError(f"controller: {source} draws its masks anew each time; another policy will do")
    if isinstance(agent, EarlyExit):
        raise ValueError(
            f"run: {source} answers images itself; fine-tune the run that it was made of, then call"
            " `instanas early-exit`"
        )
    if options.masks == "random" and not isinstance(agent, RewardRegression):
        raise ValueError(f"masks: got 'random' with a {type(agent).__name__}; a RewardRegression will do")
    if agent.space != space:
        raise ValueError(
            f"run: its meta-graph is for {space.config}, not {agent.space.config} as is {source}"
        )
    return source, agent
