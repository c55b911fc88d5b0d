"""Policies ranked on the test split: a row for each and seed, means over seeds, and what replays them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.evaluation.awareness import measure_awareness
from agents.evaluation.scores import mean_interval, score_masks
from agents.static import RandomAgent, StaticAgent
from instanas_env.bandit import InstanceBandit, Outcome
from instanas_env.build import shipped
from instanas_env.storage import load_json, load_weights, save_json, save_weights
from instanas_env.training.bound import described
from scripts.comparison.contest import Contest

LARGEST_DIFFERENCE = 0.001
"""Share of the answers that may differ on another processor, by rounding."""


def rows(contest: Contest, policies: Sequence[str], seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A row for every policy and seed; one that is in the contest's folder is not made again.

    What draws no training (fixed masks, files) has one row, of the first seed.
    """
    for seed in seeds:
        for name in policies:
            once = name in ("fixed", "shipped") or name.endswith((".safetensors", ".zip"))
            if once and seed != seeds[0]:
                continue
            file = contest.out / "policies" / f"{_as_file(name)}_{seed}.json"
            if not file.exists():
                save_json(file, _row(contest, name, seed, file))
            yield load_json(file)


def _row(contest: Contest, name: str, seed: int, file: Path) -> dict[str, Any]:
    """Train a policy, write what it chose and, where that is possible, the policy; gives its figures."""
    start = time.perf_counter()
    agent = contest.make(name, seed)
    seconds = time.perf_counter() - start
    on_val, _ = measure_awareness(contest.val, agent)
    on_test, outcome = measure_awareness(contest.test, agent)
    if not isinstance(agent, RandomAgent | StaticAgent) and type(agent).__name__ != "Predicting":
        agent.save(file.with_suffix(".safetensors"))
    save_replay(file.with_suffix(".replay.safetensors"), outcome, name, seed)
    return {
        "policy": name,
        "seed": seed,
        "replay": f"policies/{file.with_suffix('.replay.safetensors').name}",
        "steps": contest.budget.steps,
        "seconds": round(seconds, 1),
        "val": dataclasses.asdict(on_val),
        "test": dataclasses.asdict(on_test),
    }


def _as_file(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in Path(name).name)


# --- bounds ------------------------------------------------------------------------------------------


def bounds(contest: Contest) -> dict[str, float]:
    """Mean test rewards of what no policy of the menu can beat, and of the best fixed mask.

    ``for_image`` and ``for_class`` are oracles: they know the answers of the test split.
    """
    file = contest.out / "bounds.json"
    if not file.exists():
        test, menu = contest.test, contest.masks("menu")
        count = len(test.image_set)
        rewards = np.stack([score_masks(test, mask.expand(count, -1, -1)).reward for mask in menu])
        labels = test.image_set.labels.numpy()
        by_class = [rewards[:, labels == label].sum(1).max() for label in np.unique(labels)]
        fixed = score_masks(test, contest.masks("best").expand(count, -1, -1)).reward
        save_json(
            file,
            {
                "fixed": float(fixed.mean()),
                "for_class": float(sum(by_class) / count),
                "for_image": float(rewards.max(0).mean()),
            },
        )
    return {name: value for name, value in load_json(file).items() if name != "sha256"}


def summary(results: list[dict[str, Any]], limits: dict[str, float]) -> list[dict[str, Any]]:
    """The policies, the one with the most reward first: means over seeds and their 95 % intervals."""
    ranked = []
    for name in dict.fromkeys(row["policy"] for row in results):
        own = [row["test"] for row in results if row["policy"] == name]
        figures = [key for key, value in own[0].items() if isinstance(value, (int, float))]
        means: dict[str, Any] = {key: mean_interval([row[key] for row in own]) for key in figures}
        for figure, other in (("shuffled", "reward"), ("shuffled", "accuracy"), ("most_used", "reward")):
            lost = [row[other] - row[f"{figure}_{other}"] for row in own]
            means[f"lost_{figure}_{other}"] = mean_interval(lost)
        for limit, value in limits.items():
            means[f"regret_{limit}"] = mean_interval([value - row["reward"] for row in own])
        seconds = [row["seconds"] for row in results if row["policy"] == name]
        ranked.append({"policy": name, "seeds": len(own), "seconds": sum(seconds) / len(seconds), **means})
    return sorted(ranked, key=lambda row: -row["reward"][0])


# --- replays -----------------------------------------------------------------------------------------


def save_replay(path: Path, outcome: Outcome, policy: str, seed: int) -> None:
    """Write every image's mask, whether it was right, and its reward, in the order of the split."""
    masks = outcome.mask.reshape(len(outcome.mask), -1)
    tensors = {
        "masks": torch.from_numpy(np.packbits(masks, axis=1)),
        "correct": torch.from_numpy(outcome.correct.astype(np.uint8)),
        "reward": torch.from_numpy(outcome.reward.astype(np.float64)),
    }
    save_weights(path, tensors, {"replay_of": policy, "seed": seed})


def fingerprints(test: InstanceBandit, environment: dict[str, Any]) -> dict[str, Any]:
    """What a replay needs to be the same: images, weights and table."""
    files = {
        "meta_graph": environment.get("meta_graph") or shipped("meta_graph.safetensors"),
        "latency_table": environment.get("latency_table") or shipped("latency.json"),
    }
    hashes = {name: sha256(Path(path).read_bytes()).hexdigest() for name, path in files.items()}
    return {"test": described(test.image_set), **hashes}


def verify(test: InstanceBandit, replay: Path) -> tuple[int, int, list[int]]:
    """Score a replay again.

    Returns:
        The number of images, of rewards that differ though the answer is the same (0, or the record was
        changed), and the positions of images whose answer differs.
    """
    tensors, _ = load_weights(replay)
    space, count = test.space, len(test.image_set)
    for name in ("masks", "correct", "reward"):
        if name not in tensors or len(tensors[name]) != count:
            raise ValueError(f"verify: {replay} does not hold {name!r} of {count} images")
    bits = np.unpackbits(tensors["masks"].numpy(), axis=1, count=space.num_bits).astype(bool)
    masks: Tensor = torch.from_numpy(bits).view(count, space.num_cells, space.num_modules)
    outcome = score_masks(test, masks)
    same = outcome.correct == tensors["correct"].numpy().astype(bool)
    rewards = int((outcome.reward[same] != tensors["reward"].numpy()[same]).sum())
    return count, rewards, np.flatnonzero(~same).tolist()
