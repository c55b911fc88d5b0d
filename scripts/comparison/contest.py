"""What policies are compared on: the environment and its splits, and the masks that do not look at an image.

Fixed masks are ranked on the validation split; nothing is chosen on the test split.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

import instanas_env  # noqa: F401  (registers the environments)
from agents.evaluation.scores import score_masks, spread_over
from agents.one_shot import Candidate, OneShotSearch
from instanas_env.bandit import InstanceBandit
from instanas_env.build import build_bandit, shipped, shipped_table
from instanas_env.contextual import ContextualBandit
from instanas_env.data import load_images
from instanas_env.storage import load_json, save_json
from instanas_env.tabular import TABLE, build_tabular
from instanas_env.tabular_bandit import TabularBandit
from instanas_env.training.matching import META_GRAPH
from scripts.comparison.fixed import ranked

LIVE, TWIN = "InstaNAS-v1", "InstaNASTabular-v1"
NUM_ENVS = 256
CURVE_IMAGES = 1000
"""Validation images that a learner is judged on while it learns, evenly spaced."""


@dataclass(frozen=True)
class Budget:
    """How much a policy may learn from, and how many fixed masks are looked at."""

    steps: int = 420_000
    """Answers (an image under a mask) that a policy learns from."""
    masks: int = 300
    """Fixed masks that are ranked on all validation images, half of them mutations of the best."""
    menu: int = 53
    """So many of these regression, DQN and LinUCB choose from; regret is against them."""
    passes: int = 40
    """Passes of regression over its images and their answers."""

    @classmethod
    def of(cls, options: Any) -> Budget:
        """The budget that is part of a verb's options."""
        return cls(**{entry.name: getattr(options, entry.name) for entry in fields(cls)})


@dataclass(frozen=True)
class Contest:
    """Environments and fixed masks of one comparison; nothing is loaded before it is needed.

    Attributes:
        out: directory, where the fixed masks are kept.
        environment: keyword arguments of ``env``; data set, weights, table.
        budget: see :class:`Budget`.
        seed: of the search of fixed masks.
        trust: whether files that may run code are loaded: SB3's zips.
        env: the environment's id.
        progress: whether learners show a bar.
        device: where the live meta-graph computes.
    """

    out: Path
    environment: dict[str, Any]
    budget: Budget
    seed: int = 0
    trust: bool = False
    env: str = LIVE
    progress: bool = False
    device: str = "cpu"

    @classmethod
    def of(cls, options: Any, environment: dict[str, Any], device: str) -> Contest:
        """The contest of a verb's options; learners show a bar."""
        rules = {name: getattr(options, name) for name in ("out", "seed", "trust", "env")}
        return cls(environment=environment, budget=Budget.of(options), progress=True, device=device, **rules)

    @property
    def twin(self) -> bool:
        """Whether the environment is tabular: its actions are arms."""
        return self.env == TWIN

    @property
    def _given(self) -> dict[str, Any]:
        return self.environment if self.twin else {**self.environment, "device": self.device}

    @cached_property
    def val(self) -> Any:
        """An :class:`InstanceBandit` or a :class:`TabularBandit`."""
        return self._bandit("val")

    @cached_property
    def test(self) -> Any:
        """As :attr:`val`."""
        return self._bandit("test")

    def _bandit(self, split: str) -> InstanceBandit | TabularBandit:
        return (build_tabular if self.twin else build_bandit)(split=split, **self._given)

    @cached_property
    def val_part(self) -> ContextualBandit:
        """Some validation images, to draw a learning curve; all of the twin, where they cost nothing."""
        part, count = copy.copy(self.val), len(self.val.image_set)
        if not self.twin and count > CURVE_IMAGES:
            part.image_set = part.image_set.take(spread_over(count, CURVE_IMAGES))
        return part

    @property
    def space(self) -> Any:
        """The search space."""
        return self.val.space

    def envs(self, **forms: Any) -> gym.vector.VectorEnv:
        """A fresh training environment of :attr:`num_envs` images.

        ``forms`` are ``actions``, ``layout`` and ``observation``.
        """
        return gym.make_vec(self.env, num_envs=self.num_envs, split="train", **self._given, **forms)

    @cached_property
    def num_envs(self) -> int:
        """Images a step: 256, or all of the training split if there are fewer."""
        if self.twin:
            return min(NUM_ENVS, len(self.val.table.correct("train")))
        dataset, place = self.environment.get("dataset", "embedded"), self.environment.get("data_dir")
        return min(NUM_ENVS, len(load_images(dataset, "train", place, self.space.resolution)))

    def envs_of_arms(self, observation: str = "image") -> gym.vector.VectorEnv:
        """A fresh training environment whose actions are numbers of masks of the menu."""
        menu = {} if self.twin else {"actions": self.masks("menu").flatten(1).int().tolist()}
        return self.envs(observation=observation, **menu)

    @cached_property
    def fixed(self) -> dict[str, Any]:
        """The best fixed mask ("best"), its "accuracy", and the "menu", bits ``(K, num_bits)``.

        On the twin those of the table; else as they stand in fixed.json, searched for if there is none. They
        took so many "answers" on validation images, and "seconds" of the processor.
        """
        if self.twin:
            arm, menu = self.val.judged.fixed_arm, self.val.table.masks.flatten(1).int().tolist()
            found = {"best": [menu[arm]], "accuracy": float(self.val.correct[:, arm].mean()), "menu": menu}
            # The whole table was looked at.
            return {**found, "answers": self.val.correct.size, "seconds": 0.0}
        file = self.out / "fixed.json"
        if not file.exists():
            start = time.process_time()
            search = OneShotSearch(self.val, self.seed, images=len(self.val.image_set))
            candidates = ranked(search, self.budget.masks).candidates
            best = max(candidates, key=lambda candidate: worth(self.val, candidate))
            menu = search.menu(self.budget.menu).flatten(1).int().tolist()
            mask = best.mask.flatten().int().tolist()
            spent = {"answers": search.answers, "seconds": round(time.process_time() - start, 1)}
            save_json(file, {"best": [mask], "accuracy": best.accuracy, "menu": menu, **spent})
        return load_json(file)

    def masks(self, name: str) -> Tensor:
        """The masks "best" ``(1, ...)`` or "menu" ``(K, num_cells, num_modules)``."""
        return torch.tensor(self.fixed[name]).bool().view(-1, self.space.num_cells, self.space.num_modules)

    @property
    def files(self) -> dict[str, Path]:
        """What the environment reads, by the argument that names it."""
        names = ("table",) if self.twin else ("meta_graph", "latency_table")
        return {name: Path(self.environment.get(name) or self._shipped(name)) for name in names}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """What a replay needs to be the same: images, weights and latencies, or the twin's table."""
        hashes = {name: sha256(path.read_bytes()).hexdigest() for name, path in self.files.items()}
        return {"images": self.test.image_set.fingerprint, **hashes}

    def _shipped(self, argument: str) -> Path:
        if argument == "latency_table":
            return shipped_table(self.space)
        return shipped({"table": TABLE, "meta_graph": META_GRAPH}[argument])

    @property
    def slowest_ms(self) -> float:
        """The time of all modules, from which hypervolumes are measured."""
        return self.test.cost_table.reference("full")

    def score_fixed(self, mask: Tensor) -> Any:
        """What one mask for all images earns on the test split, an outcome."""
        return score_masks(self.test, mask.expand(len(self.test.image_set), -1, -1))


def worth(bandit: InstanceBandit, candidate: Candidate) -> float:
    """Mean reward of a fixed mask, from its accuracy."""
    latency = torch.tensor(candidate.latency_ms, dtype=torch.float64)
    right, wrong = bandit.pay(torch.tensor([True, False]), latency)[2].tolist()
    return candidate.accuracy * right + (1 - candidate.accuracy) * wrong
