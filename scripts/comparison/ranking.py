"""Policies ranked on the test split: a row for each and seed, means over seeds, and what replays them.

Besides what all rows have (:mod:`scripts.comparison.rows`), one of a benchmark has "replay" (its file),
"steps" and "seconds" of its training, "curve", and "val", its scores on validation images.
"""

from __future__ import annotations

import dataclasses
import inspect
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.evaluation.awareness import measure
from agents.evaluation.clock import time_policy
from agents.evaluation.over_seeds import by_policy, gain_interval, mean_interval, over_seeds
from agents.evaluation.picks import hypervolume
from agents.evaluation.replay import Replay
from agents.files import CLASSES, load_agent
from instanas_env.storage import file_fingerprint, load_json, save_json
from scripts.comparison.contest import Contest
from scripts.comparison.kept import file_name
from scripts.comparison.learning import let_learn
from scripts.comparison.plugged import imported
from scripts.comparison.policies import enter
from scripts.comparison.workers import in_processes

REGRETS = ("fixed", "for_class", "for_image")


def rows(
    contest: Contest, policies: Sequence[str], seeds: Sequence[int], jobs: int = 1, threads: int = 1
) -> Iterator[dict[str, Any]]:
    """A row for every policy and seed; one that is in the contest's folder is not made again.

    What draws no training (fixed masks, files) has one row, of the first seed.

    Args:
        contest: what they are compared on.
        policies: names, see :mod:`scripts.comparison.policies`.
        seeds: of the trainings.
        jobs: processes at a time; 1 is this one.
        threads: of PyTorch in each process.

    Raises:
        ValueError: processes that failed; the others have ended then.
    """
    named = dict.fromkeys(policies)  # each once
    tasks = [(name, seed) for seed in seeds for name in named if seed == seeds[0] or not _once(name)]
    done = [task for task in tasks if row_file(contest, *task).exists()]
    for task in done:
        yield load_json(row_file(contest, *task))
    missing = [task for task in tasks if task not in done]
    if jobs == 1:
        for task in missing:
            make_row(contest, *task)
            yield load_json(row_file(contest, *task))
        return
    _ = contest.fixed  # searched for once, before there are several who need it
    fresh, failed = replace(contest, progress=False), []  # a copy that has loaded nothing
    for (_, name, seed), code in in_processes(make_row, [(fresh, *task) for task in missing], jobs, threads):
        if code == 0:
            yield load_json(row_file(contest, name, seed))
        else:
            failed.append(f"{name} seed {seed} ended with {code}")
    if failed:
        raise ValueError(f"jobs: {'; '.join(failed)}; what has finished is kept, the same command goes on")


def _once(name: str) -> bool:
    return name in ("fixed", "shipped") or name.endswith((".safetensors", ".zip"))


def row_file(contest: Contest, name: str, seed: int) -> Path:
    """Where the row of a policy and seed is kept; one whose source was edited has another."""
    plain, source = file_name(name), Path(name)
    if ":" in name:
        with suppress(TypeError, ValueError):  # a class that no file holds, or none
            source = Path(inspect.getsourcefile(imported(name)) or name)
    if source.is_file():  # another content is another policy
        plain += f"_{file_fingerprint(source)[:8]}"
    return contest.out / "policies" / f"{plain}_{seed}.json"


def make_row(contest: Contest, name: str, seed: int) -> None:
    """Train a policy; write its replay, the policy where that is possible, and last its figures."""
    file = row_file(contest, name, seed)
    with seeded(seed):
        entry = enter(contest, name, seed)
        learning = let_learn(contest, entry)
        entry.tune(contest.val)
        on_val, _ = measure(contest.val, entry.agent)
        on_test, outcome = measure(contest.test, entry.agent)
    if type(entry.agent) in CLASSES:  # a class of the user's own would not be read again
        entry.agent.save(file.with_suffix(".safetensors"))
    Replay.of(outcome, name, seed, contest.fingerprints).save(file.with_suffix(".npz"))
    volume = hypervolume([on_test.accuracy], [on_test.latency_ms], contest.slowest_ms)
    scores = {"val": on_val.known(), "test": {**on_test.known(), "hypervolume": volume}}
    about = {"policy": name, "seed": seed, "replay": f"policies/{file.with_suffix('.npz').name}"}
    save_json(file, {**about, **learning, **scores})


def told(row: dict[str, Any]) -> str:
    """A row in a sentence."""
    test = row["test"]
    return (
        f"{row['policy']} seed {row['seed']}: reward {test['reward']:.3f}, {100 * test['accuracy']:.1f} %"
        f" right in {test['latency_ms']:.3f} ms, {test['networks']} networks"
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators seeded, for policies that draw from them; afterwards as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def clocked(contest: Contest, row: dict[str, Any], images: int) -> dict[str, Any]:
    """The row with ``clock_ms``: what the one ONNX file takes by the clock on so many test images.

    Only of policies that were saved, and that the file can hold; kept beside the row.
    """
    policy = row_file(contest, row["policy"], row["seed"]).with_suffix(".safetensors")
    if contest.twin or not policy.is_file():
        return row
    file = policy.with_suffix(f".clock{images}.json")
    if not file.exists():
        times = time_policy(contest.test, load_agent(policy), contest.val, images)
        measured = None if times is None else float(times.measured_ms.mean())
        save_json(file, {"clock_ms": measured})
    measured = load_json(file)["clock_ms"]
    return row if measured is None else {**row, "test": {**row["test"], "clock_ms": measured}}


# --- bounds ------------------------------------------------------------------------------------------


def bounds(contest: Contest) -> dict[str, float]:
    """Mean test rewards of what no policy of the menu can beat, and of the best fixed mask.

    ``for_image`` and ``for_class`` are oracles: they know the answers of the test split. ``hypervolume`` is
    that of the menu's masks, each for all images.
    """
    file = contest.out / "bounds.json"
    if not file.exists():
        outcomes = [contest.score_fixed(mask) for mask in contest.masks("menu")]
        rewards = np.stack([outcome.reward for outcome in outcomes])
        labels = contest.test.image_set.labels.numpy()
        by_class = [rewards[:, labels == label].sum(1).max() for label in np.unique(labels)]
        fixed = contest.score_fixed(contest.masks("best"))
        Replay.of(fixed, "fixed", contest.seed, contest.fingerprints).save(contest.out / "fixed.npz")
        accuracy = [float(each.correct.mean()) for each in outcomes]
        latency_ms = [float(each.latency_ms.mean()) for each in outcomes]
        limits = {
            "fixed": float(fixed.reward.mean()),
            "for_class": float(sum(by_class) / len(labels)),
            "for_image": float(rewards.max(0).mean()),
            "hypervolume": hypervolume(accuracy, latency_ms, contest.slowest_ms),
        }
        save_json(file, limits)
    return load_json(file)


def ranked(contest: Contest, results: list[dict[str, Any]], limits: dict[str, float]) -> list[dict[str, Any]]:
    """A line for each policy, see :func:`over_seeds`, the one with the most reward first.

    ``over_fixed_reward`` and ``over_fixed_accuracy`` are over the best fixed mask on the same images, with
    intervals over images and seeds, see :func:`gain_interval`.
    """
    judged, bits = [], contest.space.num_bits
    for row in results:
        regrets = {f"regret_{limit}": limits[limit] - row["test"]["reward"] for limit in REGRETS}
        judged.append({**row, "test": {**row["test"], "val_reward": row["val"]["reward"], **regrets}})
    lines, fixed = over_seeds(judged), Replay.load(contest.out / "fixed.npz", bits)
    for line, members in zip(lines, by_policy(results).values(), strict=True):
        replays = [Replay.load(contest.out / row["replay"], bits) for row in members]
        for figure, of in (("reward", "reward"), ("accuracy", "correct")):
            gains = np.array([getattr(each, of) * 1.0 - getattr(fixed, of) for each in replays])
            line[f"over_fixed_{figure}"] = gain_interval(gains)
        line |= {key: float(np.mean([row[key] for row in members])) for key in ("steps", "seconds")}
        line["curve"] = mean_curve(members)
    return sorted(lines, key=lambda line: -line["reward"][0])


def mean_curve(members: list[dict[str, Any]]) -> list[list[float | None]]:
    """``[answers, mean, low, high]`` over seeds of each point that all have."""
    points = zip(*(row["curve"] for row in members), strict=False)
    return [[float(np.mean([x for x, _ in same])), *mean_interval([y for _, y in same])] for same in points]


def record(contest: Contest, results: list[dict[str, Any]]) -> dict[str, Any]:
    """What ``benchmark.json`` holds of the rows, the contest and its limits."""
    limits = bounds(contest)
    lines = ranked(contest, results, limits)
    accuracy, latency_ms = ([line[figure][0] for line in lines] for figure in ("accuracy", "latency_ms"))
    return {
        "env": contest.env,
        "environment": contest.environment,
        "budget": dataclasses.asdict(contest.budget),
        "fingerprints": contest.fingerprints,
        "search": {name: contest.fixed[name] for name in ("answers", "seconds")},
        "bounds": limits,
        "hypervolume": hypervolume(accuracy, latency_ms, contest.slowest_ms),
        "reference_point": {"accuracy": 0.0, "latency_ms": contest.slowest_ms},
        "policies": lines,
        "rows": results,
    }
