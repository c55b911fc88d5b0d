"""The rows of a comparison: every policy touches the test split once, here."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.agent import Agent
from agents.evaluation.controls import Controls
from agents.evaluation.scores import (
    BATCH_SIZE,
    choose_masks,
    real_latency,
    score_masks,
    shuffle_between_images,
    summarise,
    summarise_network,
)
from agents.reward_regression import RewardRegression
from instanas_env.bandit import InstanceBandit, Outcome
from instanas_env.data import ImageSet
from instanas_env.deploy.timing import Backend, time_networks
from instanas_env.seeding import generator_for
from scripts.comparison.alone import LoneNetwork
from scripts.comparison.image_record import Choices, bits, choices
from scripts.comparison.names import SHUFFLED


class Comparison:
    """Collects the rows of the table.

    Args:
        image_set: the test split.
        seed: of what is shuffled and timed.
        backend: what real latencies are measured with; None leaves them out.

    Attributes:
        rows: of the table, for results.json.
        choices: by a row's name, which image got which network; of controllers that were not shuffled.
        correct: by a row's name, which images a policy got right, bool ``(N,)``.
    """

    def __init__(self, image_set: ImageSet, seed: int = 0, backend: Backend | None = None):
        self.image_set = image_set
        self.seed = seed
        self.backend = backend
        self.rows: list[dict[str, Any]] = []
        self.choices: dict[str, Choices] = {}
        self.correct: dict[str, np.ndarray] = {}

    def add(self, group: str, name: str, bandit: InstanceBandit, agent: Agent) -> Tensor:
        """Score a policy and keep its row; gives its masks."""
        masks = bandit.space.repair(choose_masks(agent, self.image_set))
        real = None
        if self.backend is not None:
            real = real_latency(bandit, agent, masks, generator_for(self.seed, 7), backend=self.backend)
        outcome = self._keep(group, name, bandit, masks, agent.controller is not None, real)
        if agent.controller is not None:
            self.choices[name] = choices(outcome)
        return masks

    def add_shuffled(self, group: str, name: str, bandit: InstanceBandit, masks: Tensor) -> None:
        """The control of the row ``name``: its ``masks`` exchanged between the images."""
        shuffled = shuffle_between_images(masks, generator_for(self.seed, 8))
        self._keep(group, name + SHUFFLED, bandit, shuffled, True, None)

    def add_controls(self, name: str, controls: Controls, on_val: Tensor) -> None:
        """Put the controls of a controller, whose masks on validation are ``on_val``, into its row."""
        (row,) = (row for row in self.rows if row["name"] == name)
        row["controls"] = controls.of(on_val, self.correct[name], self.correct[name + SHUFFLED])

    def add_network(
        self,
        group: str,
        name: str,
        bandit: InstanceBandit,
        lone: LoneNetwork,
        latency: tuple[float, dict[str, Any]],
    ) -> None:
        """A network trained alone: its ``latency`` in ms, and what else its row tells of it."""
        real = None
        if self.backend is not None:
            side, generator = lone.resolution, generator_for(self.seed, 7)
            real = time_networks([lone.network], side, generator, backend=self.backend).item()
        latency_ms, source = latency
        correct = lone.correct(self.image_set, bandit.device)
        self.correct[name] = correct.numpy()
        result = summarise_network(name, correct, latency_ms, bandit, real)
        size = {"parameters": lone.parameters, "mmacs": lone.mmacs}
        self.rows.append({"group": group, **dataclasses.asdict(result), "networks": None, **size, **source})

    def add_controller_alone(self, name: str, bandit: InstanceBandit, agent: RewardRegression) -> None:
        """What the controller of the policy ``name`` takes the images for, without any network after it."""
        parts = torch.arange(len(self.image_set)).split(BATCH_SIZE)
        names = torch.cat([agent.names(self.image_set.images[part]) for part in parts])
        correct = names == self.image_set.labels
        result = summarise_network(
            f"{name}, the controller alone", correct, bandit.latency_table.controller, bandit
        )
        self.rows.append({"group": "controllers alone", **dataclasses.asdict(result), "networks": None})

    def _keep(
        self, group: str, name: str, bandit: InstanceBandit, masks: Tensor, chosen: bool, real: float | None
    ) -> Outcome:
        outcome = score_masks(bandit, masks)
        result = summarise(name, outcome, bandit.latency_table.controller if chosen else 0.0, real)
        self.correct[name] = outcome.correct
        row = dataclasses.asdict(result)
        self.rows.append({"group": group, **row, "networks": networks(outcome) if chosen else None})
        return outcome


def networks(outcome: Outcome) -> list[dict[str, Any]]:
    """The distinct networks of a policy: mask as a string of bits, latency in ms, number of images."""
    masks, first, counts = np.unique(bits(outcome), axis=0, return_index=True, return_counts=True)
    return [
        {
            "mask": "".join(map(str, mask)),
            "latency_ms": round(float(latency), 4),
            "images": int(count),
        }
        for mask, latency, count in zip(masks, outcome.latency_ms[first], counts, strict=True)
    ]
