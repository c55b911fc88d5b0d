"""The rows of a comparison: every policy touches the test split once, here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.agent import Agent
from agents.evaluation.controls import Controls
from agents.evaluation.scores import (
    BATCH_SIZE,
    PolicyResult,
    choose_masks,
    real_latency,
    score_masks,
    shuffle_between_images,
    some_images,
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

    def add_search(
        self, name: str, agent: Agent, val: InstanceBandit, test: InstanceBandit, dial: Sequence[float]
    ) -> dict[str, Tensor]:
        """Add a row for each setting of a controller's dial, and one with its masks shuffled.

        One mask for all (an agent without a controller) has nothing to shuffle, and is a fixed mask itself:
        of it there is the row alone, and nothing is given.

        Args:
            name: of the search.
            agent: its controller.
            val, test: bandits of its meta-graph.
            dial: settings, in multiples of MobileNetV2's latency.

        Returns:
            The repaired masks of the validation images by the row's name.
        """
        on_val = {}
        for label in settings(name, agent, val, dial):
            masks = self.add(name, label, test, agent)
            if agent.controller is None:
                continue
            shuffled = shuffle_between_images(masks, generator_for(self.seed, 8))
            self._keep(name, label + SHUFFLED, test, shuffled, True, None)
            on_val[label] = val.space.repair(choose_masks(agent, val.image_set))
        return on_val

    def add_controls(self, name: str, controls: Controls, on_val: Tensor) -> None:
        """Put the controls of a controller, whose masks on validation are ``on_val``, into its row."""
        (row,) = (row for row in self.rows if row["name"] == name)
        row["controls"] = controls.of(on_val, self.correct[name], self.correct[name + SHUFFLED])

    def add_network(
        self, bandit: InstanceBandit, lone: LoneNetwork, latency: tuple[float, dict[str, Any]]
    ) -> None:
        """A network trained alone: its ``latency`` in ms, and what else its row tells of it."""
        real = None
        if self.backend is not None:
            side, generator = lone.resolution, generator_for(self.seed, 7)
            real = time_networks([lone.network], side, generator, backend=self.backend).item()
        latency_ms, source = latency
        correct = lone.correct(self.image_set, bandit.device)
        self.correct[lone.name] = correct.numpy()
        result = summarise_network(lone.name, correct, latency_ms, bandit, real)
        size = {"parameters": lone.parameters, "mmacs": lone.mmacs}
        self._append(lone.family, result, None, **size, **source)

    def add_controller_alone(self, name: str, bandit: InstanceBandit, agent: RewardRegression) -> None:
        """What the controller of the policy ``name`` takes the images for, without any network after it."""
        parts = torch.arange(len(self.image_set)).split(BATCH_SIZE)
        names = torch.cat([agent.names(self.image_set.images[part]) for part in parts])
        correct = names == self.image_set.labels
        label, latency_ms = f"{name}, the controller alone", bandit.latency_table.controller
        self._append("controllers alone", summarise_network(label, correct, latency_ms, bandit), None)

    def _keep(
        self, group: str, name: str, bandit: InstanceBandit, masks: Tensor, chosen: bool, real: float | None
    ) -> Outcome:
        outcome = score_masks(bandit, masks)
        result = summarise(name, outcome, bandit.latency_table.controller if chosen else 0.0, real)
        self.correct[name] = outcome.correct
        self._append(group, result, networks(outcome) if chosen else None)
        return outcome

    def _append(
        self, group: str, result: PolicyResult, networks: list[dict[str, Any]] | None, **more: Any
    ) -> None:
        self.rows.append({"group": group, **dataclasses.asdict(result), "networks": networks, **more})


def settings(name: str, agent: Agent, val: InstanceBandit, dial: Sequence[float]) -> Iterator[str]:
    """Names of an agent's settings; as each is given, the agent is set to it.

    One without a dial, or with no settings for it, is taken as it is.
    """
    if not isinstance(agent, RewardRegression) or not dial:
        yield name
        return
    images = some_images(val.image_set)
    for factor in dial:
        agent.dial(images, factor * val.latency_table.reference("mobilenet_v2"))
        yield f"{name}, dial {factor:g}"


def networks(outcome: Outcome) -> list[dict[str, Any]]:
    """The distinct networks of a policy: mask as a string of bits, latency in ms, number of images."""
    masks, first, counts = np.unique(bits(outcome), axis=0, return_index=True, return_counts=True)
    return [
        {"mask": "".join(map(str, mask)), "latency_ms": round(float(latency), 4), "images": int(count)}
        for mask, latency, count in zip(masks, outcome.latency_ms[first], counts, strict=True)
    ]
