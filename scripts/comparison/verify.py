"""A second machine confirms a benchmark: its replays are scored again, its rows compared with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agents.evaluation.replay import LARGEST_DIFFERENCE, Replay
from agents.evaluation.scores import choose_answers
from agents.files import load_agent
from instanas_env.contextual import Outcome
from instanas_env.storage import load_json
from scripts.comparison.contest import Budget, Contest

FIGURE_ROUNDING = 1e-6
"""How far a mean of float32 rewards may be off."""


def verify(file: Path, elsewhere: dict[str, str], device: str) -> Iterator[str]:
    """Score the replays beside a record again, and compare its rows with them.

    Args:
        file: a benchmark.json.
        elsewhere: arguments of the environment that are other files here than where the record was made.
        device: where the meta-graph computes.

    Yields a line for each replay, and one for all; ``ValueError`` if files changed, too many answers differ,
    or a figure is not that of its replay.
    """
    record = load_json(file)
    given = {**record["environment"], **elsewhere}
    # Whatever the budget was, and the names of its parts: nobody learns here.
    contest = Contest(file.parent, given, Budget(), env=record["env"], device=device)
    found = [row for row in record["rows"] if (file.parent / row["replay"]).is_file()]
    if not found:
        raise ValueError(f"verify: {file} has no replays beside it")
    for row in found:
        replay = Replay.load(file.parent / row["replay"], contest.space.num_bits)
        for prints in (record["fingerprints"], replay.about["fingerprints"]):
            if changed := [name for name, value in contest.fingerprints.items() if prints.get(name) != value]:
                raise ValueError(f"verify: {file} was made with another {', '.join(changed)}")
        outcome, differ, exact = replay.verify(contest.test)
        _compare(row, replay, outcome, 0.0 if contest.twin else contest.test.latency_table.controller)
        how = f"{len(differ)} answers differ by rounding" if differ else "rewards differ by rounding"
        named = f", of images {', '.join(map(str, differ[:20]))}" if differ else ""
        images = f"{len(replay.network):,} images"
        told = "" if replay.own is None else _answers(file.parent / row["replay"], replay, contest)
        yield f"{row['policy']} seed {row['seed']}: {images}, {'to the bit' if exact else how}{named}{told}"
    without = len(record["rows"]) - len(found)
    yield f"verified {len(found)} replays" + (f"; {without} rows have none here" if without else "")


def _answers(file: Path, replay: Replay, contest: Contest) -> str:
    """What can be said of the answers that a policy gave itself: they need the policy, if it lies there."""
    policy = file.with_suffix(".safetensors")
    if not policy.is_file():
        return f"; its own answers are taken as they are, without {policy.name}"
    answers = choose_answers(load_agent(policy), contest.test.image_set).numpy()
    differ = int((answers != replay.own).sum())
    if differ > LARGEST_DIFFERENCE * len(answers):
        raise ValueError(f"verify: {differ} of {len(answers):,} answers that {policy} gives itself differ")
    return f"; its own answers too, but for {differ}" if differ else "; its own answers too"


def _compare(row: dict[str, Any], replay: Replay, outcome: Outcome, controller_ms: float) -> None:
    """``ValueError`` unless a row's policy and figures are those of its replay, and of what it earns here."""
    if (replay.about["policy"], replay.about["seed"]) != (row["policy"], row["seed"]):
        raise ValueError(f"verify: {row['replay']} is of {replay.about['policy']}, not {row['policy']}")
    own, latency_ms = row["test"], float(outcome.latency_ms.mean())
    found = {
        "accuracy": [replay.correct.mean()],
        "reward": [replay.reward.mean(dtype=float)],
        "latency_ms": [latency_ms + controller_ms, latency_ms],  # some policies have no controller
        "networks": [outcome.networks],
    }
    if "answered" in own:
        found["answered"] = [1 - outcome.mask.any((1, 2)).mean()]
    for name, means in found.items():
        if min(abs(own[name] - mean) for mean in means) > FIGURE_ROUNDING:
            raise ValueError(
                f"verify: the {name} of {row['policy']} is not {means[0]:.6f}, that of its replay"
            )
