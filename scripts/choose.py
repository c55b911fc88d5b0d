"""Pick A to E, several trade-offs, from one search (section 4.2), on the validation split alone.

    instanas choose --run runs/search

Runs every controller that the search kept, a regression controller at several settings of its dial, on
the search's final meta-graph. Of those that no other beats in both accuracy and latency (the
controller's included) up to five are picked, evenly spaced in latency: A is the most accurate, the last
the fastest. ``--prefer accuracy`` of `instanas finetune` means A, ``latency`` the last, and ``balanced``
the pick with the largest mean reward, equation (2), in the window at its last place.
Writes ``choices/A/controller.safetensors`` and so on, then ``choices.json``, which
`instanas report` draws. The meta-graph of all picks is that of the search.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from agents.evaluation.picks import CHOICES, LETTERS, choose
from agents.evaluation.scores import Scores, score_agent
from agents.files import load_agent
from agents.saved import TABLE
from instanas_env import paper
from instanas_env.bandit import InstanceBandit
from instanas_env.build import build_bandit
from instanas_env.storage import load_json, save_json
from instanas_env.training.matching import META_GRAPH
from scripts.begin import begin
from scripts.comparison.picked import save_pick, table
from scripts.comparison.rows import settings
from scripts.options import Compute, space_name


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """How finely to look at a search; an experiment has these in its preset."""

    count: int = len(LETTERS)
    """Picks at most."""
    snapshots: int = 20
    """Controllers looked at, evenly spaced among the epochs, the last one included."""
    dials: int = 12
    """Regression: settings of the dial for each controller."""
    latencies: tuple[float, float] | None = None
    """Regression: mean latencies (ms) of the first and last setting; by default what the search explored."""


@dataclass(frozen=True, kw_only=True)
class Options(Numbers, Compute):
    """Which search, and how finely to look at it."""

    run: Path = field(kw_only=False)
    """Directory of a finished search."""
    data_dir: Path | None = None
    """By default where the search had them; everything else is in its record, too."""


def validation(options: Options, device: str = "cpu") -> InstanceBandit:
    """The validation split, the search's final meta-graph and its table, the window at its last place."""
    if not (options.run / META_GRAPH).is_file():
        raise FileNotFoundError(f"run: {options.run} holds no finished search; `instanas search` makes one")
    config = load_json(options.run / "config.json")
    if "wrong_reward" not in config:
        raise ValueError(f"run: {options.run} holds no search; `instanas search` makes one")
    return build_bandit(
        dataset=config["dataset"],
        data_dir=config.get("data_dir") if options.data_dir is None else str(options.data_dir),
        split="val",
        search_space=space_name(options.run / META_GRAPH),
        meta_graph=str(options.run / META_GRAPH),
        latency_table=str(options.run / TABLE),
        wrong_reward=config["wrong_reward"],
        device=device,
        bounds={"upper": paper.SEARCH_UPPER[-1], "best": paper.SEARCH_BEST[-1]},
    )


def snapshots(run: Path, count: int) -> list[Path]:
    """At most ``count`` of the controllers that a search kept, evenly spaced, the last one among them."""
    kept = sorted((run / "controllers").glob("epoch_*.safetensors"), key=lambda path: (len(path.stem), path))
    if not kept:
        raise FileNotFoundError(f"run: {run}/controllers holds no controller; `instanas search` keeps them")
    places = np.linspace(len(kept) - 1, 0, min(count, len(kept))).round().astype(int)
    return [kept[place] for place in places[::-1]]


def points(options: Options, bandit: InstanceBandit) -> Iterator[dict[str, Any]]:
    """What every controller and setting is worth on the validation split."""
    for path in track(snapshots(options.run, options.snapshots), "controllers"):
        agent = load_agent(path)
        explored: tuple[float, float] | None = getattr(agent, "latencies", None)
        ends = options.latencies or explored
        dials = [] if ends is None else np.linspace(*ends, options.dials).tolist()
        for dial_ms in settings(agent, bandit, dials):
            point = Scores.of(score_agent(bandit, agent), bandit.latency_table.controller).known()
            about = {"controller": str(path.relative_to(options.run)), "dial_ms": dial_ms}
            yield {**about, "trade_off": getattr(agent, "trade_off", None), **point}


def main(options: Options) -> None:
    """Look, pick, write."""
    if not 2 <= options.count <= len(LETTERS):
        raise ValueError(f"count: got {options.count}; 2 to {len(LETTERS)} will do")
    world = begin(options)
    bandit = validation(options, str(world.device))
    content = choose(list(points(options, bandit)), options.count)
    for letter, i in content["picks"].items():
        save_pick(options.run, letter, content["points"][i])
    window = {"upper_ms": bandit.bounds.upper, "lower_ms": bandit.bounds.lower}
    images = {"split": "val", "images": len(bandit.image_set)}
    record = {name: str(value) for name, value in asdict(options).items()}
    save_json(options.run / CHOICES, {"options": record, **images, **window, **content})
    table(content).show()
    print(f"wrote {options.run}/choices.json, choices/")
