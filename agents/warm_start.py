"""Starting a learner from the controller that another one has learnt.

Regression learns instance-aware policies (bandit feedback with little variance), REINFORCE climbs the reward
itself from wherever it stands. So the one can hand over to the other: w_i(x) - lambda latency_i, whose sign
is the regression policy, become REINFORCE's logits. A policy that takes masks off a menu has no such logits:
there REINFORCE's controller learns its bits by imitation first; so it does where modules are worth something
to classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.agent import Agent, LearningAgent
from agents.arms import ModuleArms
from agents.controller import Controller
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from instanas_env.seeding import generator_for

CONFIDENCE = 2.0
# Of imitation: what p of a bit that is on is to become, so that samples still differ; and of the optimizer.
CERTAINTY = 0.98
IMITATION_PASSES, IMITATION_BATCH, IMITATION_RATE = 10, 256, 2e-3


def warm_start(agent: LearningAgent, source: Agent, images: Tensor) -> None:
    """Give ``agent`` the controller of ``source``; its optimizer starts anew.

    Args:
        agent: to be trained; of the same class as ``source``, or REINFORCE from a regression.
        source: trained in the same search space. A regression's lambda is that of its ``trade_off``.
        images: uint8 ``(n, 3, H, W)``, to scale REINFORCE's logits on (their root mean square becomes 2, so
            that modules are sampled against the policy now and then), or to imitate on: the more, the better.

    Raises:
        ValueError: they do not fit together.
    """
    if agent.space != source.space:
        raise ValueError(f"source: made for the search space {source.space.config}, not {agent.space.config}")
    if isinstance(agent, RewardRegression) and isinstance(source, RewardRegression):
        decisive = ("menu", "groups", "num_classes", "class_gains")
        if any(getattr(agent, name) != getattr(source, name) for name in decisive):
            raise ValueError("source: has another menu or other classes than agent; the same ones will do")
        # All but the latencies, which belong to the environment's table.
        own = {name: getattr(agent.controller, name) for name in ("latencies", "fixed_ms")}
        agent.controller.load_state_dict({**source.controller.state_dict(), **own})
        agent.trade_off = source.trade_off
    elif isinstance(source, LearningAgent) and type(agent) is type(source):
        agent.controller.load_state_dict(source.controller.state_dict())
    elif type(agent) is SelfCriticalReinforce and isinstance(source, RewardRegression):
        linear = isinstance(source.arms, ModuleArms) and not source.class_gains
        hand_over = _hand_over if linear else _imitate
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


def _imitate(agent: SelfCriticalReinforce, source: RewardRegression, images: Tensor) -> None:
    """Train the whole controller, from the regression's features on, to give the bits of its masks."""
    controller = agent.controller
    assert isinstance(controller, Controller)
    controller.features.load_state_dict(source.controller.network.features.state_dict())
    bits = torch.cat([source.masks(part).flatten(1) for part in images.split(500)])
    targets = torch.where(bits, CERTAINTY, 1 - CERTAINTY)
    optimizer = torch.optim.Adam(controller.parameters(), IMITATION_RATE)
    generator = generator_for(agent.seed, 11)
    controller.train()
    for number in range(IMITATION_PASSES):
        for group in optimizer.param_groups:
            group["lr"] = IMITATION_RATE * (1 - number / IMITATION_PASSES)
        for index in torch.randperm(len(images), generator=generator).split(IMITATION_BATCH):
            if len(index) == 1:  # of which BatchNorm has no statistics
                break
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(controller(images[index]), targets[index]).backward()
            optimizer.step()
    controller.eval()
