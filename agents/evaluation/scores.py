"""What a policy is worth on a split: accuracy with an interval, latency, reward, number of networks."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from agents.agent import Agent
from instanas_env import reward
from instanas_env.bandit import Contexts, InstanceBandit, Outcome
from instanas_env.contextual import ContextualBandit
from instanas_env.data import ImageSet
from instanas_env.deploy.profiling import time_children
from instanas_env.deploy.timing import Backend
from instanas_env.networks.modules import fold_batch_norm

BATCH_SIZE = 250
DIAL_IMAGES = 10_000  # of ImageNet's validation cut all would take 19 GB


def choose_masks(agent: Agent, image_set: ImageSet) -> Tensor:
    """The agent's masks for every image, in order, ``(N, num_cells, num_modules)``."""
    index = torch.arange(len(image_set))
    return torch.cat([agent.masks(image_set.images[part]) for part in index.split(BATCH_SIZE)])


def some_images(image_set: ImageSet, count: int = DIAL_IMAGES) -> Tensor:
    """Images to set a dial on, uint8 ``(n, 3, H, W)``: all, or ``count`` evenly spaced ones of more."""
    total = len(image_set)
    return image_set.images[torch.arange(min(count, total)) * total // min(count, total)]


def score_masks(bandit: ContextualBandit, masks: Tensor) -> Outcome:
    """What repaired masks ``(N, num_cells, num_modules)`` earn on the whole split, in order, unaugmented."""
    parts = []
    for index in torch.arange(len(bandit.image_set)).split(BATCH_SIZE):
        contexts = Contexts(index, bandit.image_set.images[index])
        parts.append(bandit.score(contexts, bandit.actions_of(masks[index])))
    names = [field.name for field in fields(Outcome)]
    return Outcome(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def shuffle_between_images(masks: Tensor, generator: torch.Generator) -> Tensor:
    """The same masks, other images: the control for instance-awareness. The mean latency stays."""
    return masks[torch.randperm(len(masks), generator=generator)]


@dataclass(frozen=True)
class PolicyResult:
    """One row of a comparison.

    Attributes:
        name: of the policy.
        images: how many it was measured on.
        accuracy, accuracy_low, accuracy_high: fraction correct and its 95 % interval (Wilson).
        latency_ms: mean from the table, with the controller's where there is one.
        real_latency_ms: mean measured on separate children, controller included; None if not measured.
        reward: mean, as the environment gives it (the controller's time is not part of it).
        architectures: number of distinct masks.
    """

    name: str
    images: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    latency_ms: float
    real_latency_ms: float | None
    reward: float
    architectures: int


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson)."""
    from scipy.stats import binomtest

    interval = binomtest(correct, count).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


def summarise(
    name: str, outcome: Outcome, controller_ms: float = 0.0, real_latency_ms: float | None = None
) -> PolicyResult:
    """The row of a policy from what it earned on a split."""
    return _policy_result(
        name,
        outcome.correct,
        float(outcome.latency_ms.mean()) + controller_ms,
        real_latency_ms,
        float(outcome.reward.mean()),
        outcome.networks,
    )


def summarise_network(
    name: str,
    correct: Tensor,
    latency_ms: float,
    bandit: InstanceBandit,
    real_latency_ms: float | None = None,
) -> PolicyResult:
    """The row of a network that all images go through and that need not come from the meta-graph.

    Args:
        name: of the network.
        correct: bool ``(N,)``.
        latency_ms: of the network.
        bandit: its window judges the latency, as it does those of its own masks.
        real_latency_ms: measured.
    """
    cost = torch.full(correct.shape, latency_ms, dtype=torch.float64)
    earned = reward.combine(
        reward.task_reward(correct, bandit.correct_reward, bandit.wrong_reward),
        reward.latency_reward(cost, bandit.bounds),
    )
    return _policy_result(name, correct.numpy(), latency_ms, real_latency_ms, float(earned.mean()), 1)


def _policy_result(
    name: str,
    correct: np.ndarray,
    latency_ms: float,
    real_latency_ms: float | None,
    mean_reward: float,
    architectures: int,
) -> PolicyResult:
    low, high = wilson_interval(int(correct.sum()), len(correct))
    accuracy = (float(correct.mean()), low, high)
    return PolicyResult(
        name, len(correct), *accuracy, latency_ms, real_latency_ms, mean_reward, architectures
    )


def real_latency(
    bandit: InstanceBandit,
    agent: Agent,
    masks: Tensor,
    generator: torch.Generator,
    images: int = 40,
    repetitions: int = 15,
    backend: Backend = "onnx",
) -> float:
    """Mean measured milliseconds of one image: the agent's controller, then a separate child network.

    Args:
        bandit: gives the meta-graph.
        agent: its controller, if any, is run before every child.
        masks: repaired masks of the split; ``images`` of them are drawn and timed.
        generator: CPU generator.
        images: number of masks drawn.
        repetitions: of each distinct child; the 20th percentile counts.
        backend: what runs them; see :func:`time_children`.
    """
    drawn = masks[torch.randperm(len(masks), generator=generator)[:images]]
    distinct, position = torch.unique(drawn.flatten(1), dim=0, return_inverse=True)
    controller = None if agent.controller is None else fold_batch_norm(agent.controller)
    if controller is not None and backend == "eager":
        controller.to(next(bandit.meta_graph.parameters()).device)
    times = time_children(
        bandit.meta_graph,
        distinct.view(-1, *masks.shape[1:]),
        generator,
        repetitions,
        controller,
        backend=backend,
    )
    return times[position].mean().item()


def mean_interval(values: list[float]) -> tuple[float, float | None, float | None]:
    """Mean over seeds and its 95 % interval (Student's t); one seed has none."""
    from scipy.stats import t

    array = np.asarray(values, float)
    mean = float(array.mean())
    if len(array) < 2:
        return mean, None, None
    half = float(t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return mean, mean - half, mean + half
