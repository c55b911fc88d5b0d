"""Whether a policy gives each image what it needs: what it earns, and what refutes it.

- Its masks *shuffled* between the images: no loss means that it does not matter who gets which.
- Its *most used* network for all images: no loss means that one network would have done.
- What its controller *names* right by itself: networks that are no better are not worth their time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.agent import Agent
from agents.evaluation.controls import most_used
from agents.evaluation.scores import choose_masks, score_masks, shuffle_between_images
from instanas_env.bandit import InstanceBandit, Outcome
from instanas_env.contextual import ContextualBandit
from instanas_env.seeding import generator_for


@dataclass(frozen=True)
class Awareness:
    """A policy on a split: accuracies in 0..1, latencies in ms, the controller's included.

    Attributes:
        accuracy, latency_ms, reward: means over the images.
        latency_sd_ms: standard deviation over the images.
        networks: number of distinct masks.
        shuffled_accuracy, shuffled_reward: of the same masks, exchanged between the images.
        most_used_accuracy, most_used_latency_ms, most_used_reward: of its most used network for all images,
            without the controller, which it does not need.
        names_accuracy: what the controller names right by itself; None where it names nothing.
        class_latency_ms: mean for each true class.
    """

    accuracy: float
    latency_ms: float
    reward: float
    latency_sd_ms: float
    networks: int
    shuffled_accuracy: float
    shuffled_reward: float
    most_used_accuracy: float
    most_used_latency_ms: float
    most_used_reward: float
    names_accuracy: float | None
    class_latency_ms: list[float]


def measure_awareness(bandit: ContextualBandit, agent: Agent, seed: int = 0) -> tuple[Awareness, Outcome]:
    """A policy's figures on the bandit's split, and what became of each image.

    Args:
        bandit: gives the split, the answers, the latencies and the window. A tabular one knows of no
            controller: latencies are then those of the networks alone.
        agent: chooses deterministically.
        seed: of the exchange.
    """
    images = bandit.image_set
    masks = bandit.space.repair(choose_masks(agent, images))
    own = score_masks(bandit, masks)
    shuffled = score_masks(bandit, shuffle_between_images(masks, generator_for(seed, 5)))
    favourite = score_masks(bandit, most_used(masks, 1).expand(len(masks), -1, -1))
    controller_ms = 0.0
    if agent.controller is not None and isinstance(bandit, InstanceBandit):
        controller_ms = bandit.latency_table.controller
    labels = images.labels.numpy()
    figures = Awareness(
        accuracy=float(own.correct.mean()),
        latency_ms=float(own.latency_ms.mean()) + controller_ms,
        reward=float(own.reward.mean()),
        latency_sd_ms=float(own.latency_ms.std()),
        networks=own.networks,
        shuffled_accuracy=float(shuffled.correct.mean()),
        shuffled_reward=float(shuffled.reward.mean()),
        most_used_accuracy=float(favourite.correct.mean()),
        most_used_latency_ms=float(favourite.latency_ms.mean()),
        most_used_reward=float(favourite.reward.mean()),
        names_accuracy=_names_accuracy(agent, images.images[torch.arange(len(images))], images.labels),
        class_latency_ms=[
            float(own.latency_ms[labels == label].mean()) + controller_ms
            for label in range(len(images.classes))
        ],
    )
    return figures, own


def _names_accuracy(agent: Agent, images: Tensor, labels: Tensor) -> float | None:
    if not getattr(agent, "num_classes", 0):
        return None
    names = torch.cat([agent.names(part) for part in images.split(500)])  # type: ignore[attr-defined]
    return (names == labels).double().mean().item()
