"""Early exit: where the controller is sure what an image shows, that is the answer, and no network runs.

A controller that learnt to name the images (the second loss of ``reinforce`` and ``regression``) is a small
classifier that every image pays for anyway. BranchyNet (Teerapittayanon et al., 2016) lets an image leave at
the first branch of a network whose softmax is sure; here that branch is the controller, and what lies behind
it is the network that it chooses, or one for all. Ours: the paper's controller only chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from agents.agent import NETWORK, Agent
from agents.controller import outputs_to_onnx
from agents.learning import LearningAgent
from agents.reinforce import SelfCriticalReinforce
from agents.reward_regression import RewardRegression
from agents.static import StaticAgent
from instanas_env import checks
from instanas_env.deploy.choice import Exit
from instanas_env.deploy.onnx_graph import OnnxGraph
from instanas_env.search_space import SearchSpace
from instanas_env.storage import PathLike
from instanas_env.validation import json_object, record, text

NAMERS: tuple[type[LearningAgent], ...] = (SelfCriticalReinforce, RewardRegression)
"""Agents whose controllers can learn to name the images."""
NEVER = 2.0
"""A confidence that no softmax reaches."""
_AGENT = record({"agent": text(*(kind.__name__ for kind in NAMERS)), "hyperparameters": json_object})


class EarlyExit(Agent):
    """An agent whose controller answers the images that it is sure of.

    To predict and to deploy: it does not learn, and :meth:`predict` gives masks for all images, those that it
    answers too, since an action of the environment is a mask.

    Args:
        agent: chooses the masks, and names the images.
        confidence: from which probability on (softmax) it answers; 0 answers all, above 1 none.
        mask: of the images that it does not answer, instead of those that ``agent`` chooses,
            ``(num_cells, num_modules)`` or bits; is repaired.

    Raises:
        ValueError: an agent that learnt no names.
    """

    hyperparameters: ClassVar[tuple[str, ...]] = ("confidence", "named", "bits")

    def __init__(self, agent: LearningAgent, confidence: float, mask: Tensor | Sequence[int] | None = None):
        if type(agent) not in NAMERS or agent.num_classes == 0:  # what can be saved
            raise ValueError(
                f"agent: got a {type(agent).__name__} that names no images; SelfCriticalReinforce or"
                " RewardRegression, made with num_classes, will do"
            )
        super().__init__(agent.space)
        self.agent = agent
        self.confidence = checks.number("confidence", confidence, 0)
        self.fixed = None if mask is None else StaticAgent(agent.space, mask)

    @property
    def controller(self) -> nn.Module:  # type: ignore[override]
        """The agent's, which names and chooses at once."""
        return self.agent.controller

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        """So many it names."""
        return self.agent.num_classes

    @property
    def num_timesteps(self) -> int:  # type: ignore[override]
        """So many images the agent has learnt from."""
        return self.agent.num_timesteps

    @num_timesteps.setter
    def num_timesteps(self, count: int) -> None:
        self.agent.num_timesteps = count

    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """Of images that a network is to answer, and of the others what it would be."""
        return self.chooser.masks(images, deterministic)

    @torch.no_grad()
    def name_logits(self, images: Tensor) -> Tensor:
        """Logits of the names, ``(B, num_classes)``."""
        return self.agent.name_logits(images)

    def own_answers(self, images: Tensor) -> Tensor:
        """See :meth:`Agent.own_answers`."""
        sure, name = self.name_logits(images).softmax(1).max(1)
        return torch.where(sure >= self.confidence, name, NETWORK)

    @property
    def chooser(self) -> LearningAgent | StaticAgent:
        """What gives the masks: the agent, or one for all."""
        return self.fixed or self.agent

    @property
    def has_dial(self) -> bool:
        """As :attr:`Agent.has_dial`: whether what gives the masks has one."""
        return self.chooser.has_dial

    def dial(self, images: Tensor, latency_ms: float) -> float:
        """As :meth:`Agent.dial`; what counts are images that the agent does not answer, if there are any."""
        answers = torch.cat([self.own_answers(part) for part in images.split(500)])
        left = images[(answers == NETWORK).cpu()]
        return self.chooser.dial(left if len(left) else images, latency_ms)

    def bits_to_onnx(self, graph: OnnxGraph, image: str, dial: str | None = None) -> str:
        """As :meth:`Agent.bits_to_onnx`, or that of :class:`RewardRegression` with a ``dial``."""
        if isinstance(self.chooser, RewardRegression):
            return self.chooser.bits_to_onnx(graph, image, dial)
        return self.chooser.bits_to_onnx(graph, image)

    def exit_to_onnx(self, graph: OnnxGraph, image: str) -> Exit:
        """As :meth:`Agent.exit_to_onnx`."""
        controller = self.agent.controller
        network: Any = getattr(controller, "network", controller)  # of regression, which has prices beside it
        names = torch.eye(network.output.out_features)[-self.num_classes :]
        logits = outputs_to_onnx(network, graph, image, names)
        surest = graph.op("ReduceMax", graph.op("Softmax", logits, axis=1), axes=[1], keepdims=0)
        least = graph.constant(np.array([self.confidence], np.float32))
        return Exit(graph.op("GreaterOrEqual", surest, least), logits)

    # --- files -----------------------------------------------------------------------------------

    @property
    def named(self) -> dict[str, Any]:
        """The agent's class and hyperparameters."""
        own = {name: getattr(self.agent, name) for name in self.agent.hyperparameters}
        return {"agent": type(self.agent).__name__, "hyperparameters": own}

    @property
    def bits(self) -> list[int] | None:
        """The mask of all images that it does not answer; None where the agent chooses."""
        return None if self.fixed is None else self.fixed.bits

    @classmethod
    def _restore(
        cls, env: gym.vector.VectorEnv | None, space: SearchSpace, hyperparameters: dict[str, Any]
    ) -> Self:
        named = _AGENT(hyperparameters["named"], "named")
        kind = next(kind for kind in NAMERS if kind.__name__ == named["agent"])
        agent = kind._restore(None, space, named["hyperparameters"])
        return cls(agent, hyperparameters["confidence"], hyperparameters["bits"])

    def _weights(self) -> dict[str, Tensor]:
        return self.agent._weights()

    def _take(self, weights: dict[str, Tensor], path: PathLike) -> None:
        self.agent._take(weights, path)
