"""Self-critical REINFORCE, the paper's learner (section 3.3, equation (1))."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, get_args

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from agents.agent import LearningAgent, space_of
from agents.controller import Controller
from agents.exploration import encourage, greedy, linear_schedule, sample
from agents.table_baseline import table_baseline
from instanas_env import paper
from instanas_env.distributed import ALONE, World
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for

LogProbability = Literal["p", "p_prime"]
Baseline = Literal["masks", "table"]


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
        baseline: R(p~), or another baseline that does not depend on the action, ``(..., 1)``; or on bit i
            of it, ``(..., bits)``.
    """
    return -((reward.unsqueeze(-1) - baseline) * log_prob).sum(-1).mean()


def leave_one_out(values: Tensor) -> Tensor:
    """The baseline of each of K samples ``(K, n)``: the mean of the other K - 1."""
    count = len(values)
    return (values.sum(0, keepdim=True) - values) / (count - 1)


def changes_rewards(env: gym.vector.VectorEnv) -> bool:
    """Whether one of the wrappers around an environment is a reward wrapper."""
    while isinstance(env, gym.vector.VectorWrapper):
        if isinstance(env, gym.vector.VectorRewardWrapper):
            return True
        env = env.env
    return False


class SelfCriticalReinforce(LearningAgent):
    """The paper's agent.

    Args:
        env: from ``gym.make_vec``.
        learning_rate: of Adam.
        alpha: of p', first and last value.
        alpha_timesteps: the number of images over which alpha moves; None means those of each call of
            ``learn``.
        entropy_coefficient: weight of the entropy in the objective. Negative minimises entropy, the
            paper's words; positive is the bonus of most policy gradients.
        samples_per_image: 1 compares with the greedy mask (equation (1)); K > 1 samples K masks per
            image and compares each with the mean of the others, which has less variance.
        log_probability_under: "p" as equation (1) has it, or "p_prime", the distribution sampled from.
        baseline: "masks", the reward of those others; or "table", what each bit would earn if the image were
            answered as by those others, with the latency of this mask's other bits
            (``agents/table_baseline.py``).
        always, never: numbers of bits that are on, or off, in all its masks and not its to decide. With those
            of a menu (:meth:`agents.arms.MenuArms.certain`) it chooses among the menu's modules alone, which
            the meta-graph has been trained for.
        seed: of the initial weights and the samples.
        world: see :class:`LearningAgent`.
    """

    hyperparameters: ClassVar[tuple[str, ...]] = (
        "learning_rate", "alpha", "alpha_timesteps", "entropy_coefficient", "samples_per_image",
        "log_probability_under", "baseline", "always", "never", "seed",
    )  # fmt: skip

    def __init__(
        self,
        env: gym.vector.VectorEnv | None,
        learning_rate: float = 3e-3,
        alpha: tuple[float, float] = (paper.ALPHA_START, paper.ALPHA_END),
        alpha_timesteps: int | None = None,
        entropy_coefficient: float = 0.0,
        samples_per_image: int = 4,
        log_probability_under: LogProbability = "p_prime",
        baseline: Baseline = "masks",
        always: Sequence[int] = (),
        never: Sequence[int] = (),
        seed: int = 0,
        space: SearchSpace | None = None,
        world: World = ALONE,
    ):
        if samples_per_image < 1:
            raise ValueError(f"samples_per_image: got {samples_per_image}; at least 1 will do")
        if not all(0.5 <= value <= 1 for value in alpha):
            raise ValueError(f"alpha: got {alpha}; two numbers in [0.5, 1] will do")
        if log_probability_under not in ("p", "p_prime"):
            raise ValueError(
                f"log_probability_under: unknown {log_probability_under!r}; p or p_prime will do"
            )
        if baseline not in get_args(Baseline):
            raise ValueError(f"baseline: unknown {baseline!r}; masks or table will do")
        if env is not None and changes_rewards(env):
            raise ValueError("env: a wrapper changes its rewards, but score() knows nothing of it; unwrap it")
        space = space_of(env, space)
        for name, bits in (("always", always), ("never", never)):
            if not all(0 <= bit < space.num_bits for bit in bits):
                raise ValueError(f"{name}: got {list(bits)}; bits in 0..{space.num_bits - 1} will do")
        if set(always) & set(never):
            raise ValueError(f"never: got {sorted(set(always) & set(never))}, which are in always as well")
        super().__init__(env, space, self._network(space, generator_for(seed, 0)), seed, world)
        self.learning_rate = learning_rate
        self.alpha = (float(alpha[0]), float(alpha[1]))
        self.alpha_timesteps = alpha_timesteps
        self.entropy_coefficient = entropy_coefficient
        self.samples_per_image = samples_per_image
        self.log_probability_under: LogProbability = log_probability_under
        self.baseline: Baseline = baseline
        self.always, self.never = list(always), list(never)
        self.optimizer = torch.optim.Adam(self.controller.parameters(), learning_rate)
        self.generator = generator_for(seed, 1)

    @torch.no_grad()
    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """The greedy mask p~, or a Bernoulli sample of p."""
        probabilities = self._held(self.controller.eval()(images).sigmoid())
        choices = greedy(probabilities) if deterministic else sample(probabilities, self.generator)
        return self._actions(choices).view(-1, self.space.num_cells, self.space.num_modules)

    def train(self, total_timesteps: int) -> Iterator[dict[str, float]]:
        """See :class:`LearningAgent`."""
        world = self.world
        begun = 0 if self.alpha_timesteps else self.num_timesteps
        horizon = self.alpha_timesteps or total_timesteps
        for _ in range(self._steps(total_timesteps)):
            alpha = linear_schedule(*self.alpha, (self.num_timesteps - begun) / horizon)
            images = torch.from_numpy(self._begin())
            probabilities = self._held(self.controller.train()(images).sigmoid())
            sampled_from = self._held(encourage(probabilities, alpha))
            everyone = world.gather(sampled_from.detach())
            choices = world.own(sample(everyone, self.generator, self.samples_per_image), dim=1)
            reward, baseline, info = self._rewards(choices, greedy(probabilities), sampled_from.detach())
            under = probabilities if self.log_probability_under == "p" else sampled_from
            bits_entropy = entropy(probabilities).mean()
            loss = self_critical_loss(log_probability(under, choices), reward, baseline)
            loss = loss - self.entropy_coefficient * bits_entropy
            self._update(loss)
            figures = (
                reward.mean().item(),
                bits_entropy.item(),
                info["correct"].mean(),
                info["latency_ms"].mean(),
            )
            advantage = reward.unsqueeze(-1) - baseline
            mean_reward, mean_entropy, accuracy, latency = world.mean([float(figure) for figure in figures])
            yield {
                "reward": mean_reward,
                "advantage_std": world.gather(advantage, dim=1).std(unbiased=False).item(),
                "entropy": mean_entropy,
                "alpha": alpha,
                "accuracy": accuracy,
                "latency_ms": latency,
            }

    def _rewards(
        self, choices: Tensor, greedy_choices: Tensor, sampled_from: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Of sampled choices ``(K, n, outputs)``: rewards ``(K, n)`` and baselines, which have one more
        dimension, 1 or outputs. Acts with the first."""
        bandit = self._native().bandit
        bounds = bandit.bounds  # the step may end an epoch and move them
        others = choices[1:] if len(choices) > 1 else greedy_choices[None]
        outcome = self._native().score(self._actions(others).numpy())
        first, info = self._step(self._actions(choices[0]))
        reward = self._judged(choices[0], first, info["correct"])[None]
        baseline = self._judged(others, outcome.reward, outcome.correct)
        if len(choices) > 1:
            reward = torch.cat([reward, baseline])
            baseline = leave_one_out(reward)
        if self.baseline == "masks":
            return reward.float(), baseline.unsqueeze(-1).float(), info
        likely = torch.from_numpy(outcome.correct).double()
        if len(choices) > 1:
            likely = leave_one_out(torch.cat([torch.from_numpy(info["correct"])[None].double(), likely]))
        masks = self._actions(choices).unflatten(-1, (self.space.num_cells, -1))
        return reward.float(), table_baseline(bandit, bounds, sampled_from, masks, likely).float(), info

    # --- what another space of choices overrides ---------------------------------------------------

    @staticmethod
    def _network(space: SearchSpace, generator: torch.Generator) -> Controller:
        """The controller: one logit for each choice, here the bits of a mask."""
        return Controller(space, generator=generator)

    def _held(self, probabilities: Tensor) -> Tensor:
        """Probabilities ``(..., outputs)`` with 1 or 0 for each choice that is not free."""
        held = probabilities
        for bits, certain in ((self.always, 1.0), (self.never, 0.0)):
            held = held.index_fill(-1, torch.tensor(bits, dtype=torch.long, device=held.device), certain)
        return held

    def _actions(self, choices: Tensor) -> Tensor:
        """The actions ``(..., num_bits)`` of choices, bool ``(..., outputs)``."""
        return choices

    def _judged(self, choices: Tensor, reward: np.ndarray, correct: np.ndarray) -> Tensor:
        """What choices ``(..., outputs)`` are worth, ``(...)``; here the environment's reward."""
        return torch.from_numpy(reward)
