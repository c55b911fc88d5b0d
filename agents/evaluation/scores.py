"""What a policy is worth on a split: accuracy with an interval, latency, reward, number of networks."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.agent import NETWORK, Agent
from instanas_env import checks
from instanas_env.bandit import Contexts, Outcome
from instanas_env.contextual import ContextualBandit
from instanas_env.data import ImageSet

BATCH_SIZE = 250
DIAL_IMAGES = 10_000  # of ImageNet's validation cut all would take 19 GB


def choose_masks(agent: Agent, image_set: ImageSet) -> Tensor:
    """The agent's masks for every image, in order, ``(N, num_cells, num_modules)``."""
    index = torch.arange(len(image_set))
    return torch.cat([agent.masks(image_set.images[part]) for part in index.split(BATCH_SIZE)])


def choose_answers(agent: Agent, image_set: ImageSet) -> Tensor:
    """The classes that the agent answers itself, of every image, ``(N,)``; see :meth:`Agent.own_answers`."""
    parts = torch.arange(len(image_set)).split(BATCH_SIZE)
    return torch.cat([_own_answers(agent, image_set, part) for part in parts])


def _own_answers(agent: Agent, image_set: ImageSet, part: Tensor) -> Tensor:
    answers, last = agent.own_answers(image_set.images[part]), len(image_set.classes) - 1
    right = isinstance(answers, Tensor) and answers.dtype == torch.int64 and answers.shape == part.shape
    if not right or ((answers < NETWORK) | (answers > last)).any():
        came = " ".join(repr(answers).split())  # on one line
        raise checks.refuse(
            "own_answers", checks.Shown(f"{came:.60}"), f"int64 ({len(part)},) of {NETWORK} to {last}"
        )
    return answers.cpu()


def some_images(image_set: ImageSet, count: int = DIAL_IMAGES) -> Tensor:
    """Images to set a dial on, uint8 ``(n, 3, H, W)``: all, or ``count`` evenly spaced ones of more."""
    return image_set.images[spread_over(len(image_set), count)]


def spread_over(total: int, count: int) -> Tensor:
    """Positions ``(n,)`` of all, or of ``count`` evenly spaced ones of more: folders come class by class."""
    return torch.arange(min(count, total)) * total // min(count, total)


def score_agent(bandit: ContextualBandit, agent: Agent) -> Outcome:
    """What the agent earns on the whole split, in order, unaugmented."""
    images = bandit.image_set
    masks = bandit.space.repair(choose_masks(agent, images))
    return score_masks(bandit, masks, choose_answers(agent, images))


def score_masks(bandit: ContextualBandit, masks: Tensor, answers: Tensor | None = None) -> Outcome:
    """What masks ``(N, num_cells, num_modules)`` earn on the whole split, in order, unaugmented.

    Args:
        bandit: gives the split, the answers of its networks, the latencies and the window.
        masks: are repaired.
        answers: classes ``(N,)`` that a policy answered itself, see :meth:`Agent.own_answers`. For such an
            image no network runs: its latency is 0, and its mask is empty. R_A is that of 0 ms, as equation
            (2) has it: 0 in a window whose L is above 0.
    """
    parts = []
    for index in torch.arange(len(bandit.image_set)).split(BATCH_SIZE):
        contexts = Contexts(index, bandit.image_set.images[index])
        parts.append(bandit.score(contexts, bandit.actions_of(masks[index])))
    names = [field.name for field in fields(Outcome)]
    outcome = Outcome(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
    return outcome if answers is None else with_answers(bandit, outcome, answers)


def with_answers(bandit: ContextualBandit, outcome: Outcome, answers: Tensor) -> Outcome:
    """What becomes of an outcome ``(N,)`` where a policy answers images itself, as in :func:`score_masks`."""
    own = answers != NETWORK
    if not own.any():
        return outcome
    prediction = np.where(own, answers, outcome.prediction)
    correct = prediction == outcome.label
    task, free, earned = bandit.pay(torch.from_numpy(correct), torch.zeros(len(own), dtype=torch.float64))
    return replace(
        outcome,
        reward=np.where(own, earned, outcome.reward),
        prediction=prediction,
        correct=correct,
        is_success=correct.copy(),
        latency_ms=np.where(own, 0.0, outcome.latency_ms),
        reward_task=task.numpy(),
        reward_latency=np.where(own, free, outcome.reward_latency),
        mask=outcome.mask & ~own.numpy().reshape(-1, 1, 1),
    )


@dataclass(frozen=True)
class Scores:
    """A policy on a split: accuracies in 0..1; latencies in ms, the controller's included.

    What is None was not measured. :func:`agents.evaluation.awareness.measure` gives what refutes a policy.

    Attributes:
        images: how many there are.
        accuracy, latency_ms, reward: means over the images; the environment's reward leaves the controller's
            time out.
        accuracy_low, accuracy_high: 95 % interval over the images (Wilson).
        latency_sd_ms: standard deviation over the images.
        networks: number of distinct masks; the empty one of an early exit is one of them.
        answered: part of the images that the controller answers itself (early exit).
        shuffled_accuracy, shuffled_reward: of the same masks, exchanged between the images.
        lost_shuffled_accuracy, lost_shuffled_reward: what that costs; ``_low`` and ``_high`` are the ends of
            its 95 % interval over the images (paired).
        most_used_accuracy, most_used_latency_ms, most_used_reward: of its most used network for all images,
            without the controller, which it does not need; with an early exit for all that a network answers.
        lost_most_used_reward: what that costs.
        names_accuracy: what the controller names right by itself.
        difficulty: rank correlation between the latency of an image and its loss in MobileNetV2 trained
            alone, ``_low`` and ``_high`` the ends of its 95 % interval over the images, ``_within`` the mean
            of those within the classes; see :mod:`agents.evaluation.difficulty`.
        class_latency_ms: mean for each true class; None for one without images.
        clock_ms: mean by the clock.
    """

    images: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    latency_ms: float
    reward: float
    latency_sd_ms: float
    networks: int
    answered: float | None = None
    shuffled_accuracy: float | None = None
    shuffled_reward: float | None = None
    lost_shuffled_accuracy: float | None = None
    lost_shuffled_accuracy_low: float | None = None
    lost_shuffled_accuracy_high: float | None = None
    lost_shuffled_reward: float | None = None
    most_used_accuracy: float | None = None
    most_used_latency_ms: float | None = None
    most_used_reward: float | None = None
    lost_most_used_reward: float | None = None
    names_accuracy: float | None = None
    difficulty: float | None = None
    difficulty_low: float | None = None
    difficulty_high: float | None = None
    difficulty_within: float | None = None
    class_latency_ms: list[float | None] | None = None
    clock_ms: float | None = None

    @classmethod
    def of(cls, outcome: Any, controller_ms: float = 0.0, **measured: Any) -> Scores:
        """What an outcome of all images comes to.

        Args:
            outcome: an :class:`Outcome`, or what else has ``correct``, ``latency_ms``, ``reward`` (arrays of
                all images) and ``networks``.
            controller_ms: of an image.
            measured: further attributes.
        """
        low, high = wilson_interval(int(outcome.correct.sum()), len(outcome.correct))
        return cls(
            images=len(outcome.correct),
            accuracy=float(outcome.correct.mean()),
            accuracy_low=low,
            accuracy_high=high,
            latency_ms=float(outcome.latency_ms.mean()) + controller_ms,
            reward=float(outcome.reward.mean()),
            latency_sd_ms=float(outcome.latency_ms.std()),
            networks=outcome.networks,
            **measured,
        )

    def known(self) -> dict[str, Any]:
        """What was measured, by name, as JSON has it."""
        return {name: value for name, value in vars(self).items() if value is not None}


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson)."""
    from scipy.stats import binomtest

    interval = binomtest(correct, count).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)
