"""Starting a learner from the controller that another one has learnt.

Regression learns instance-aware policies (bandit feedback with little variance), REINFORCE climbs the reward
itself from wherever it stands. So the one can hand over to the other: w_i(x) - lambda latency_i, whose sign
is the regression policy, become REINFORCE's logits.
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
        agent: to be trained; of the same class as ``source``, or REINFORCE from a regression of modules.
        source: trained in the same search space. A regression's lambda is that of its ``trade_off``.
        images: uint8 ``(n, 3, H, W)``, to scale the logits on: their root mean square becomes 2, so that
            the modules are sampled against the policy now and then.

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
        _hand_over(agent, source, images)
    else:
        kinds = f"{type(source).__name__} to {type(agent).__name__}"
        raise ValueError(
            f"source: cannot go from {kinds}; the same class, or regression to REINFORCE, will do"
        )


@torch.no_grad()
def _hand_over(agent: SelfCriticalReinforce, source: RewardRegression, images: Tensor) -> None:
    """Make the regression's surplus of each module the logit of its bit."""
    if not isinstance(source.arms, ModuleArms):
        raise ValueError("source: chooses from a menu; one that switches modules will do for REINFORCE")
    network, prices = source.controller.network, source.trade_off * source.controller.latencies
    bits = slice(1, 1 + source.arms.count)
    surplus = torch.cat([source.controller.eval()(part)[1] for part in images.split(500)]) - prices
    scale = CONFIDENCE / surplus.square().mean().sqrt()
    controller = agent.controller
    assert isinstance(controller, Controller)
    controller.features.load_state_dict(network.features.state_dict())
    controller.output.weight.copy_(scale * network.output.weight[bits])
    controller.output.bias.copy_(scale * (network.output.bias[bits] - prices))
