"""Whether a policy gives each image what it needs: what it earns, and what refutes it.

- Its masks *shuffled* between the images: no loss means that it does not matter who gets which. Early exits
  are exchanged as well.
- Its *most used* network for all images: no loss means that one network would have done.
- What its controller *names* right by itself: networks that are no better are not worth their time.
"""

from __future__ import annotations

import torch

from agents.agent import NETWORK, Agent
from agents.evaluation.controls import most_used, paired_gain
from agents.evaluation.scores import (
    Scores,
    choose_answers,
    choose_masks,
    score_masks,
)
from instanas_env.bandit import InstanceBandit, Outcome
from instanas_env.callbacks import shuffle_policies
from instanas_env.contextual import ContextualBandit
from instanas_env.data import ImageSet
from instanas_env.seeding import generator_for


def measure(
    bandit: ContextualBandit, agent: Agent, generator: torch.Generator | None = None
) -> tuple[Scores, Outcome]:
    """A policy's scores on the bandit's split, and what became of each image.

    Args:
        bandit: gives the split, the answers, the latencies and the window. A tabular one knows of no
            controller: latencies are then those of the networks alone.
        agent: chooses deterministically.
        generator: of the exchange between the images; by default one of seed 0.
    """
    images = bandit.image_set
    masks = bandit.space.repair(choose_masks(agent, images))
    answers = choose_answers(agent, images)
    own = shuffled = favourite = score_masks(bandit, masks, answers)
    run = answers == NETWORK
    if own.networks > 1:
        order = torch.randperm(len(masks), generator=generator or generator_for(0, 5))
        # An image that gets another's early exit is answered by what the controller takes it for.
        exchanged = answers if run.all() else torch.where(run[order], NETWORK, _names(agent, images))
        shuffled = score_masks(bandit, masks[order], exchanged)
        favourite = score_masks(bandit, most_used(masks[run], 1).expand(len(masks), -1, -1), answers)
    controller_ms = 0.0
    if agent.controller is not None and isinstance(bandit, InstanceBandit):
        controller_ms = bandit.latency_table.controller
    accuracy, reward = float(own.correct.mean()), float(own.reward.mean())
    lost = paired_gain(own.correct, shuffled.correct)
    of_class = [own.latency_ms[own.label == label] for label in range(len(images.classes))]
    scores = Scores.of(
        own,
        controller_ms,
        answered=1 - float(run.double().mean()) if agent.may_answer else None,
        shuffled_accuracy=float(shuffled.correct.mean()),
        shuffled_reward=float(shuffled.reward.mean()),
        lost_shuffled_accuracy=accuracy - float(shuffled.correct.mean()),
        lost_shuffled_accuracy_low=lost.low,
        lost_shuffled_accuracy_high=lost.high,
        lost_shuffled_reward=reward - float(shuffled.reward.mean()),
        most_used_accuracy=float(favourite.correct.mean()),
        most_used_latency_ms=float(favourite.latency_ms.mean()) + (0.0 if run.all() else controller_ms),
        most_used_reward=float(favourite.reward.mean()),
        lost_most_used_reward=reward - float(favourite.reward.mean()),
        names_accuracy=_names_accuracy(agent, images),
        class_latency_ms=[float(each.mean()) + controller_ms if len(each) else None for each in of_class],
    )
    return scores, own


def validate(bandit: ContextualBandit, agent: Agent, seed: int) -> Scores:
    """The scores that a search is watched by: of its policy, and of the same masks shuffled.

    Latencies are those of the networks alone.
    """
    masks = choose_masks(agent, bandit.image_set)
    own = score_masks(bandit, masks)
    shuffled = score_masks(bandit, shuffle_policies(masks, generator_for(seed, 5)))
    return Scores.of(own, shuffled_accuracy=float(shuffled.correct.mean()))


def _names_accuracy(agent: Agent, image_set: ImageSet) -> float | None:
    """What an agent that names the classes of these images names right."""
    if agent.num_classes != len(image_set.classes):
        return None
    return (_names(agent, image_set) == image_set.labels).double().mean().item()


def _names(agent: Agent, image_set: ImageSet) -> torch.Tensor:
    """What an agent's controller takes every image for, ``(N,)``."""
    parts = torch.arange(len(image_set)).split(500)
    return torch.cat([agent.names(image_set.images[part]) for part in parts])
