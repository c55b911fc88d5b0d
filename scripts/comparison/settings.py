"""The rows of one controller in a comparison: one for each setting of its dial, and with masks shuffled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from agents.agent import Agent
from agents.evaluation.scores import choose_masks, some_images
from agents.reward_regression import RewardRegression
from instanas_env.bandit import InstanceBandit
from scripts.comparison.rows import Comparison


def add_settings(
    comparison: Comparison,
    name: str,
    agent: Agent,
    val: InstanceBandit,
    test: InstanceBandit,
    dial: Sequence[float],
) -> dict[str, Tensor]:
    """Add the rows; gives the repaired masks of the validation images by the row's name.

    One mask for all (an agent without a controller) has nothing to shuffle, and is a fixed mask itself: of it
    there is the row alone, and nothing is given.

    Args:
        comparison: gets the rows.
        name: of the search.
        agent: its controller.
        val, test: bandits of its meta-graph.
        dial: settings, in multiples of MobileNetV2's latency.
    """
    on_val = {}
    for label in settings(name, agent, val, dial):
        masks = comparison.add(name, label, test, agent)
        if agent.controller is None:
            continue
        comparison.add_shuffled(name, label, test, masks)
        on_val[label] = val.space.repair(choose_masks(agent, val.image_set))
    return on_val


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
