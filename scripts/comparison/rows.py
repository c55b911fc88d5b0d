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
from scripts.comparison.image_record import Choices, choices, distinct
from scripts.comparison.tables import SHUFFLED


class Comparison:
    """Collects the rows of the table.

    Args:
        image_set: the test split.
        seed: of what is shuffled and timed.
        backend: what real latencies are measured with; None leaves them out.

    Attributes:
        rows: lines of the table, for results.json.
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

        ``dial`` holds settings in multiples of MobileNetV2's latency. Gives the repaired masks of the
        validation images by the row's name.
        """
        on_val, unit = {}, val.latency_table.reference("mobilenet_v2")
        for latency_ms in settings(agent, val, [factor * unit for factor in dial]):
            label = name if latency_ms is None else f"{name}, dial {latency_ms / unit:g}"
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


def settings(agent: Agent, val: InstanceBandit, latencies_ms: Sequence[float]) -> Iterator[float | None]:
    """Each mean latency, ms, when the agent's dial is set to it on validation images.

    An agent without a dial, or with no settings for it, is taken as it is, once: None.
    """
    if not isinstance(agent, RewardRegression) or not latencies_ms:
        yield None
        return
    images = some_images(val.image_set)
    for latency_ms in latencies_ms:
        agent.dial(images, latency_ms)
        yield latency_ms


def networks(outcome: Outcome) -> list[dict[str, Any]]:
    """The distinct networks of a policy: mask as a string of bits, latency in ms, number of images."""
    masks, position, first = distinct(outcome)
    bits = ["".join(map(str, mask)) for mask in masks.astype(int)]
    latency_ms = [round(float(ms), 4) for ms in outcome.latency_ms[first]]
    found = zip(bits, latency_ms, np.bincount(position).tolist(), strict=True)
    return [{"mask": mask, "latency_ms": ms, "images": images} for mask, ms, images in found]
