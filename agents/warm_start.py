"""Starting a learner from the controller that another one has learnt.

Regression learns instance-aware policies (bandit feedback with little variance), REINFORCE climbs the reward
itself from wherever it stands. So the one can hand over to the other: w_i(x) - lambda latency_i, whose sign
is the regression policy, become REINFORCE's logits. A policy that takes masks off a menu has no such logits:
there a last layer is fitted that gives its bits, +-2 by least squares.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agents.agent import Agent, LearningAgent
from agents.arms import ModuleArms
from agents.controller import Controller
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression

CONFIDENCE = 2.0


def warm_start(agent: LearningAgent, source: Agent, images: Tensor) -> None:
    """Give ``agent`` the controller of ``source``; its optimizer starts anew.

    Args:
        agent: to be trained; of the same class as ``source``, or REINFORCE from a regression.
        source: trained in the same search space. A regression's lambda is that of its ``trade_off``.
        images: uint8 ``(n, 3, H, W)``, to scale REINFORCE's logits on (their root mean square becomes 2, so
            that modules are sampled against the policy now and then), or to fit them on.

    Raises:
        ValueError: they do not fit together.
    """
    if agent.space != source.space:
        raise ValueError(f"source: made for the search space {source.space.config}, not {agent.space.config}")
    if isinstance(agent, RewardRegression) and isinstance(source, RewardRegression):
        if agent.menu != source.menu or agent.num_classes != source.num_classes:
            raise ValueError("source: has another menu or other classes than agent; the same ones will do")
        # The network alone: latencies belong to the environment's table.
        agent.controller.network.load_state_dict(source.controller.network.state_dict())
        agent.trade_off = source.trade_off
    elif isinstance(source, LearningAgent) and type(agent) is type(source):
        agent.controller.load_state_dict(source.controller.state_dict())
    elif type(agent) is SelfCriticalReinforce and isinstance(source, RewardRegression):
        hand_over = _hand_over if isinstance(source.arms, ModuleArms) else _imitate
        hand_over(agent, source, images)
    else:
        kinds = f"{type(source).__name__} to {type(agent).__name__}"
        raise ValueError(
            f"source: cannot go from {kinds}; the same class, or regression to REINFORCE, will do"
        )


@torch.no_grad()
def _hand_over(agent: SelfCriticalReinforce, source: RewardRegression, images: Tensor) -> None:
    """Make the regression's surplus of each module the logit of its bit."""
    network, prices = source.controller.network, source.trade_off * source.controller.latencies
    bits = slice(1, 1 + source.arms.count)
    surplus = torch.cat([source.controller.eval()(part)[1] for part in images.split(500)]) - prices
    scale = CONFIDENCE / surplus.square().mean().sqrt()
    controller = agent.controller
    assert isinstance(controller, Controller)
    controller.features.load_state_dict(network.features.state_dict())
    controller.output.weight.copy_(scale * network.output.weight[bits])
    controller.output.bias.copy_(scale * (network.output.bias[bits] - prices))


@torch.no_grad()
def _imitate(agent: SelfCriticalReinforce, source: RewardRegression, images: Tensor) -> None:
    """Fit the last layer to the bits of the regression's masks, over the regression's features."""
    network, controller = source.controller.network.eval(), agent.controller
    assert isinstance(controller, Controller)
    parts = images.split(500)
    features = torch.cat([network.features(part) for part in parts])
    bits = torch.cat([source.masks(part).flatten(1) for part in parts])
    inputs = torch.cat([features, features.new_ones(len(features), 1)], 1).double()
    targets = torch.where(bits, CONFIDENCE, -CONFIDENCE).double()
    # Of minimal norm where images leave it open, as when there are fewer than features.
    weights = torch.linalg.lstsq(inputs, targets, driver="gelsd").solution.float()
    controller.features.load_state_dict(network.features.state_dict())
    controller.output.weight.copy_(weights[:-1].T)
    controller.output.bias.copy_(weights[-1])
