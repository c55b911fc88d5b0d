"""Self-critical REINFORCE, the paper's learner (section 3.3, equation (1)).

The paper's own settings are :data:`PAPER_SETTINGS`. With them the policy ends with one network for all
images: the biases, which all images share, grow fastest, p goes to 0 or 1, and with it the gradient of log P,
before the features have learnt to tell images apart. The defaults are ours: several samples an image, a
second loss that names the images, and an entropy bonus and a learning rate that fall.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, get_args

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agents.agent import native, space_of
from agents.controller import Controller, outputs_to_onnx
from agents.exploration import encourage, greedy, linear_schedule, sample
from agents.learning import LearningAgent
from instanas_env import checks, paper
from instanas_env.deploy.onnx_graph import OnnxGraph
from instanas_env.networks.meta_graph import MAX_CLASSES
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.epoch import set_learning_rate

LogProbability = Literal["p", "p_prime"]
MOST_SAMPLES = 10**4  # of an image

PAPER_SETTINGS: dict[str, Any] = {
    "learning_rate": paper.CONTROLLER_LEARNING_RATE,
    "constant_rate": 1.0,
    "entropy_coefficient": (0.0, 0.0),
    "samples_per_image": paper.SAMPLES_PER_IMAGE,
    "log_probability_under": "p",
    "naming_coefficient": 0.0,
}
"""Keyword arguments of :class:`SelfCriticalReinforce` that make it equation (1) as the paper states it."""


def log_probability(probabilities: Tensor, actions: Tensor) -> Tensor:
    """log P(a_i) of each of independent bits: ``(..., bits)`` and bool ``(K, ..., bits)`` to the latter."""
    chosen = torch.where(actions, probabilities, 1 - probabilities)
    return chosen.clamp(min=1e-6).log()


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy of independent bits, summed over the last dimension, in nats."""
    p = probabilities.clamp(1e-6, 1 - 1e-6)
    return -(p * p.log() + (1 - p) * (1 - p).log()).sum(-1)


def self_critical_loss(log_prob: Tensor, reward: Tensor, baseline: Tensor) -> Tensor:
    """The loss whose gradient is minus equation (1): -E[(R(p') - R(p~)) sum_i log P(a_i)].

    Args:
        log_prob: log P(a_i), ``(..., bits)``, with gradient.
        reward: R(p') of those actions, ``(...)``.
        baseline: R(p~), or another baseline that does not depend on the action, ``(...)``.
    """
    return -((reward - baseline) * log_prob.sum(-1)).mean()


def leave_one_out(values: Tensor) -> Tensor:
    """The baseline of each of K samples ``(K, n)``: the mean of the other K - 1."""
    count = len(values)
    return (values.sum(0, keepdim=True) - values) / (count - 1)


class SelfCriticalReinforce(LearningAgent):
    """The paper's agent.

    Args:
        env: from ``gym.make_vec``.
        learning_rate: of Adam.
        constant_rate: the fraction of the horizon after which the learning rate falls linearly to 0; 1 never.
        alpha: of p', first and last value.
        entropy_coefficient: weight of the entropy in the objective, first and last value, or one for both.
            Negative minimises entropy, the paper's words; positive is the bonus of most policy gradients.
        horizon: the number of images over which alpha, entropy coefficient and learning rate move; None means
            those of each call of ``learn``.
        samples_per_image: 1 compares with the greedy mask (equation (1)); K > 1 samples K masks per
            image and compares each with the mean of the others, which has less variance.
        log_probability_under: "p" as equation (1) has it, or "p_prime", the distribution sampled from.
        naming_coefficient: weight of a second loss, the cross-entropy of naming the images, whose labels are
            in ``info``: feedback that a pure bandit does not give. 0 leaves it out.
        num_classes: of the names; by default the environment's where there is a second loss, else 0.
        seed: of the initial weights and the samples.
        space: the search space; by default the environment's.
        world: see :class:`LearningAgent`.
    """

    hyperparameters: ClassVar[tuple[str, ...]] = (
        "learning_rate", "constant_rate", "alpha", "entropy_coefficient", "horizon", "samples_per_image",
        "log_probability_under", "naming_coefficient", "num_classes", "seed",
    )  # fmt: skip

    def __init__(
        self,
        env: gym.vector.VectorEnv | None,
        learning_rate: float = 1.5e-3,
        constant_rate: float = 0.5,
        alpha: tuple[float, float] = (paper.ALPHA_START, paper.ALPHA_END),
        entropy_coefficient: float | tuple[float, float] = (0.003, 0.0006),
        horizon: int | None = None,
        samples_per_image: int = 4,
        log_probability_under: LogProbability = "p_prime",
        naming_coefficient: float = 0.3,
        num_classes: int | None = None,
        seed: int = 0,
        space: SearchSpace | None = None,
        world: World = ALONE,
    ):
        self.learning_rate = checks.number("learning_rate", learning_rate, 0)
        self.constant_rate = checks.number("constant_rate", constant_rate, 0, 1)
        self.alpha = checks.pair("alpha", alpha, 0.5, 1)
        if not isinstance(entropy_coefficient, (tuple, list)):
            entropy_coefficient = (entropy_coefficient, entropy_coefficient)
        self.entropy_coefficient = checks.pair("entropy_coefficient", entropy_coefficient)
        self.horizon = checks.whole_or_none("horizon", horizon, 1)
        self.samples_per_image = checks.whole("samples_per_image", samples_per_image, 1, MOST_SAMPLES)
        self.log_probability_under: LogProbability = checks.choice(
            "log_probability_under", log_probability_under, get_args(LogProbability)
        )
        self.naming_coefficient = checks.number("naming_coefficient", naming_coefficient, 0)
        space = space_of(env, space)
        named = native(env).bandit.image_set.classes if env is not None and naming_coefficient > 0 else ()
        asked = len(named) if num_classes is None else num_classes
        self.num_classes = checks.whole("num_classes", asked, 0, MAX_CLASSES)
        if named and self.num_classes == 0:
            raise ValueError("num_classes: got 0, but a naming_coefficient; 10, say, will do")
        network = self._network(space, self.num_classes, generator_for(seed, 0))
        super().__init__(env, space, network, seed, world)
        self.optimizer = torch.optim.Adam(self.controller.parameters(), self.learning_rate)

    @torch.no_grad()
    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """The greedy mask p~, or a Bernoulli sample of p."""
        probabilities = self._held(self._outputs(self.controller.eval(), images)[0].sigmoid())
        choices = greedy(probabilities) if deterministic else sample(probabilities, self.generator)
        return self._actions(choices).view(-1, *self.space.mask_shape)

    def name_logits(self, images: Tensor) -> Tensor:
        return self._outputs(self.controller.eval(), images)[1]

    def train(self, total_timesteps: int) -> Iterator[dict[str, float]]:
        """See :class:`LearningAgent`."""
        self._native()
        if self.naming_coefficient > 0 and self.num_classes == 0:
            raise ValueError(
                "num_classes: got 0, as this agent was made without env; 10, say, will do to learn"
            )
        world = self.world
        begun = 0 if self.horizon else self.num_timesteps
        horizon = self.horizon or total_timesteps
        for _ in range(self._steps(total_timesteps)):
            progress = (self.num_timesteps - begun) / horizon
            alpha = linear_schedule(*self.alpha, progress)
            coefficient = linear_schedule(*self.entropy_coefficient, progress)
            self._set_learning_rate(progress)
            images = torch.from_numpy(self._begin())
            logits, names = self._outputs(self.controller.train(), images)
            probabilities = self._held(logits.sigmoid())
            sampled_from = self._held(encourage(probabilities, alpha))
            everyone = world.gather(sampled_from.detach())
            choices = world.own(sample(everyone, self.generator, self.samples_per_image), dim=1)
            reward, baseline, info = self._rewards(choices, greedy(probabilities))
            under = probabilities if self.log_probability_under == "p" else sampled_from
            bits_entropy = entropy(probabilities).mean()
            loss = self_critical_loss(log_probability(under, choices), reward, baseline)
            loss = loss - coefficient * bits_entropy
            if self.naming_coefficient > 0:
                labels = torch.from_numpy(np.asarray(info["label"])).to(names.device)
                loss = loss + self.naming_coefficient * F.cross_entropy(names, labels)
            self._update(loss)
            means = self._means(info, reward=float(reward.mean()), entropy=bits_entropy.item())
            spread = world.gather(reward - baseline, dim=1).std(unbiased=False).item()
            yield {**means, "alpha": alpha, "advantage_std": spread}

    def _set_learning_rate(self, progress: float) -> None:
        """Constant up to :attr:`constant_rate` of the horizon, then linear to 0 at its end."""
        left = 1.0
        if self.constant_rate < 1:
            left = min(1.0, max(0.0, (1 - progress) / (1 - self.constant_rate)))
        set_learning_rate(self.optimizer, left * self.learning_rate)

    def _rewards(self, choices: Tensor, greedy_choices: Tensor) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Act with the first of sampled choices ``(K, n, outputs)``; all rewards and baselines ``(K, n)``."""
        others = choices[1:] if len(choices) > 1 else greedy_choices[None]
        outcome = self._native().score(self._actions(others).numpy())
        first, info = self._step(self._actions(choices[0]))
        reward = self._judged(choices[0], first, info["correct"])[None]
        baseline = self._judged(others, outcome.reward, outcome.correct)
        if len(choices) > 1:
            reward = torch.cat([reward, baseline])
            baseline = leave_one_out(reward)
        return reward.float(), baseline.float(), info

    def bits_to_onnx(self, graph: OnnxGraph, image: str) -> str:
        """As :meth:`Agent.bits_to_onnx`: p > 1/2 is a logit above 0."""
        controller = self.controller
        assert isinstance(controller, Controller)
        choices = controller.output.out_features - self.num_classes
        logits = outputs_to_onnx(controller, graph, image, torch.eye(choices, controller.output.out_features))
        return self._actions_to_onnx(graph, graph.op("Greater", logits, graph.constant(np.float32(0))))

    # --- what another space of choices overrides ---------------------------------------------------

    @staticmethod
    def _network(space: SearchSpace, num_classes: int, generator: torch.Generator) -> Controller:
        """The controller: one logit for each choice, here the bits of a mask, and one for each name."""
        return Controller(space, outputs=space.num_bits + num_classes, generator=generator)

    def _outputs(self, controller: torch.nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the choices ``(B, choices)`` and of the names ``(B, num_classes)``."""
        outputs = controller(images)
        choices = outputs.shape[1] - self.num_classes
        return outputs[:, :choices], outputs[:, choices:]

    def _held(self, probabilities: Tensor) -> Tensor:
        """Probabilities ``(..., choices)`` with 1 for each choice that is not free; here all are."""
        return probabilities

    def _actions(self, choices: Tensor) -> Tensor:
        """The actions ``(..., num_bits)`` of choices, bool ``(..., outputs)``."""
        return choices

    def _judged(self, choices: Tensor, reward: np.ndarray, correct: np.ndarray) -> Tensor:
        """What choices ``(..., outputs)`` are worth, ``(...)``; here the environment's reward."""
        return torch.from_numpy(reward)

    def _actions_to_onnx(self, graph: OnnxGraph, choices: str) -> str:
        """The actions ``(1, num_bits)`` of greedy choices, bool ``(1, choices)``, in a graph."""
        return choices
