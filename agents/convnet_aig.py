"""ConvNet-AIG (Veit & Belongie, 2018), a baseline of section 4.2: gates trained by back-propagation.

Instead of trying masks and seeing rewards, let the gradient of the cross-entropy through the gates. A gate is
a binary concrete variable: with logit l, logistic noise n (the difference of two Gumbel variables) and
temperature tau,

    s = sigmoid((l + n) / tau),        g = [s > 1/2] forward, s backward (straight-through).

What it costs is held by a target t for each cell's execution rate z, the mean of its gates over a batch:

    loss = cross-entropy + weight * sum over cells of (z - t)^2.

Veit & Belongie put a gate into each layer, fed with that layer's input. Here the gates of all 85 modules come
from the controller that every agent has, so that what is compared is the way of learning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agents.agent import space_of
from agents.controller import Controller, outputs_to_onnx
from agents.learning import LearningAgent
from instanas_env import checks
from instanas_env.deploy.onnx_graph import OnnxGraph
from instanas_env.networks.gated import gated_logits
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for


def logistic_noise(uniforms: Tensor) -> Tensor:
    """log u - log(1 - u): P(l + n > 0) = sigmoid(l). Of uniforms in [0, 1), any shape."""
    u = uniforms.clamp(1e-6, 1 - 1e-6)
    return u.log() - (-u).log1p()


def straight_through(soft: Tensor, hard: Tensor) -> Tensor:
    """A tensor with the values of ``hard`` (bool) and the gradient of ``soft``, both of one shape."""
    return hard.to(soft.dtype) + (soft - soft.detach())


def target_rate_loss(gates: Tensor, target: Tensor) -> Tensor:
    """sum over cells of (z - t)^2, z a cell's mean gate over images and modules.

    Args:
        gates: ``(B, num_cells, num_modules)``.
        target: t, ``(num_cells,)``.
    """
    return ((gates.mean((0, 2)) - target) ** 2).sum()


class ConvNetAIG(LearningAgent):
    """The ConvNet-AIG agent.

    Args:
        env: from ``gym.make_vec``.
        target: t, the share of a cell's modules that are on in the mean: one number, or one for each cell.
        weight: of the target-rate loss.
        temperature: tau.
        learning_rate: of Adam, for the controller.
        meta_graph_learning_rate: of Adam, for the environment's meta-graph; 0 leaves it frozen.
        seed: of the initial weights and the noise.
    """

    hyperparameters: ClassVar[tuple[str, ...]] = (
        "target", "weight", "temperature", "learning_rate", "meta_graph_learning_rate", "seed",
    )  # fmt: skip

    def __init__(
        self,
        env: gym.vector.VectorEnv | None,
        target: float | Sequence[float] = 0.2,
        weight: float = 1.0,
        temperature: float = 1.0,
        learning_rate: float = 3e-3,
        meta_graph_learning_rate: float = 0.0,
        seed: int = 0,
        space: SearchSpace | None = None,
    ):
        space = space_of(env, space)
        if isinstance(target, (tuple, list)):
            if len(target) != space.num_cells:
                raise checks.refuse("target", target, f"one rate in [0, 1], or {space.num_cells},")
            self.target: float | tuple[float, ...] = tuple(checks.number("target", t, 0, 1) for t in target)
        else:
            self.target = checks.number("target", target, 0, 1)
        self.weight = checks.number("weight", weight, 0)
        self.temperature = checks.number("temperature", temperature, 0, above=True)
        self.learning_rate = checks.number("learning_rate", learning_rate, 0)
        self.meta_graph_learning_rate = checks.number("meta_graph_learning_rate", meta_graph_learning_rate, 0)
        super().__init__(env, space, Controller(space, generator=generator_for(seed, 0)), seed)
        self._rates = torch.tensor(self.target).expand(space.num_cells)
        self.optimizer = torch.optim.Adam(self.controller.parameters(), learning_rate)
        if env is not None:
            self._adopt()

    @torch.no_grad()
    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """The gates that are more likely on than off, or sampled ones; repaired."""
        logits = self.controller.eval()(images)
        return self._hard(logits if deterministic else logits + self._noise(logits))

    def train(self, total_timesteps: int) -> Iterator[dict[str, float]]:
        """Back-propagate through ``total_timesteps`` further images, yielding statistics after every step.

        This is no bandit learner. It acts like one, with the sampled gates, so that passes and callbacks
        go on; but it ignores the reward. It reads the images' labels, and it differentiates the
        environment's meta-graph, running all modules for every image. With a meta-graph learning rate it
        trains those weights as well, BatchNorm's statistics staying as they are.
        """
        env = self._native()
        self._adopt()
        for _ in range(self._steps(total_timesteps)):
            images = torch.from_numpy(self._begin())
            logits = self.controller.train()(images)
            noisy = logits + self._noise(logits)
            hard = self._hard(noisy.detach())
            # The step may end a pass, after which the meta-graph is another.
            reward, info = self._step(hard.flatten(1))
            soft = (noisy / self.temperature).sigmoid().view_as(hard)
            gates = straight_through(soft, hard)
            bandit = env.bandit
            meta_graph = bandit.meta_graph.eval()
            device = next(meta_graph.parameters()).device
            inputs = bandit.image_set.normalize(images.to(device))
            labels = torch.from_numpy(info["label"]).to(device)
            cross_entropy = F.cross_entropy(gated_logits(meta_graph, inputs, gates.to(device)), labels)
            rate_loss = target_rate_loss(gates, self._rates)
            loss = cross_entropy + self.weight * rate_loss.to(device)
            self.optimizer.zero_grad()
            loss.backward(inputs=self._parameters())  # nothing for weights that stay as they are
            self.optimizer.step()
            if self.meta_graph_learning_rate:
                bandit.refresh()
            yield self._means(
                info,
                loss=loss.item(),
                cross_entropy=cross_entropy.item(),
                rate=hard.float().mean().item(),
                reward=float(reward.mean()),
            )

    def bits_to_onnx(self, graph: OnnxGraph, image: str) -> str:
        assert isinstance(self.controller, Controller)
        logits = outputs_to_onnx(self.controller, graph, image, torch.eye(self.space.num_bits))
        return graph.op("Greater", logits, graph.constant(np.float32(0)))

    def _noise(self, logits: Tensor) -> Tensor:
        return logistic_noise(torch.rand(logits.shape, generator=self.generator))

    def _hard(self, logits: Tensor) -> Tensor:
        """Repaired masks ``(B, num_cells, num_modules)`` of logits ``(B, num_bits)``."""
        return self.space.repair((logits > 0).view(-1, *self.space.mask_shape))

    def _adopt(self) -> None:
        """Let the optimizer have the environment's meta-graph too, where that is to be trained."""
        if not self.meta_graph_learning_rate:
            return
        weights = list(self._native().bandit.meta_graph.parameters())
        others = self.optimizer.param_groups[1:]
        if others and others[0]["params"][0] is weights[0]:
            return
        for group in others:  # the meta-graph of another environment
            for weight in group["params"]:
                self.optimizer.state.pop(weight, None)
        del self.optimizer.param_groups[1:]
        self.optimizer.add_param_group({"params": weights, "lr": self.meta_graph_learning_rate})

    def _parameters(self) -> list[Tensor]:
        """All parameters that are trained."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
