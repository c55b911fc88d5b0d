"""The reward of an image and its mask (section 3.3): equation (2), R_T, R_A and the window [L_t, U_t]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from instanas_env import checks, paper

FURTHEST = 1e30  # a bound, in any unit


@dataclass(frozen=True)
class RewardBounds:
    """The window of latencies that are rewarded, U_t and L_t, in the unit of the cost table (mostly ms)."""

    upper: float
    lower: float

    def __post_init__(self) -> None:
        for name, value in (("bounds: U", self.upper), ("bounds: L", self.lower)):
            checks.number(name, value, -FURTHEST, FURTHEST)
        if not self.lower < self.upper:
            raise ValueError(f"bounds: got U = {self.upper:g}, L = {self.lower:g}; U must be above L")


def latency_reward(latency: Tensor, bounds: RewardBounds) -> Tensor:
    """R_A = -(z - U)(z - L) / gamma, gamma = ((U - L) / 2)^2: 1 in the middle of [L, U], 0 at its ends.

    Outside the window the quadratic would be negative; R_A lies in [0, 1] (section 3.3), so it is 0.
    """
    gamma = ((bounds.upper - bounds.lower) / 2) ** 2
    return (-(latency - bounds.upper) * (latency - bounds.lower) / gamma).clamp(min=0.0)


def task_reward(correct: Tensor, correct_reward: float, wrong_reward: float) -> Tensor:
    """R_T of each answer, float64: one number for correct, one for wrong."""
    values = torch.tensor([wrong_reward, correct_reward], dtype=torch.float64, device=correct.device)
    return values[correct.long()]


def combine(reward_task: Tensor, reward_latency: Tensor) -> Tensor:
    """Equation (2): R = R_T * R_A where R_T is positive, R_T otherwise."""
    return torch.where(reward_task > 0, reward_task * reward_latency, reward_task)


Level = tuple[float, str]
"""A latency as a multiple of a reference network's ("full", "mobilenet_v2", "cheapest"): (0.7, "full")."""


class References(Protocol):
    """What knows the latencies of the reference networks, such as a latency table."""

    def reference(self, name: str) -> float:
        """Latency of the network ``name``."""


@dataclass(frozen=True)
class BoundsSchedule:
    """U_t and L_t over the epochs t, in multiples of the latencies of reference networks.

    U_t falls linearly from its first level, in the first of ``epochs`` epochs, to its second, in the last,
    and stays there. So does L_t, or instead the latency at which R_A is 1, the middle of the window; then
    L_t = 2 best_t - U_t, which may be negative. With equal levels the window is fixed, the benchmark regime.

    Attributes:
        upper: (first level, last level) of U_t, where the reward ends.
        lower: of L_t; None where ``best`` is given.
        best: of the middle; None where ``lower`` is given.
        epochs: the number of epochs over which they fall.
    """

    upper: tuple[Level, Level] = (paper.BENCHMARK_UPPER, paper.BENCHMARK_UPPER)
    lower: tuple[Level, Level] | None = None
    best: tuple[Level, Level] | None = (paper.BENCHMARK_BEST, paper.BENCHMARK_BEST)
    epochs: int = 1

    def __post_init__(self) -> None:
        checks.whole("bounds: epochs", self.epochs, 1)
        if (self.lower is None) == (self.best is None):
            raise ValueError("bounds: got lower and best, or neither; one of the two will do")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BoundsSchedule:
        """From JSON: ``{"upper": [level, level], "best": [level, level], "epochs": int}``.

        A level is ``[factor, reference]``; a single level stands for a bound that does not move. "lower"
        may stand in the place of "best".
        """
        example = {"upper": [1.0, "full"], "best": [1.0, "cheapest"]}
        wrong = (AttributeError, IndexError, KeyError, TypeError)
        with checks.explained(f"bounds: got {config!r}; something like {example} will do", *wrong):
            unknown = config.keys() - {"upper", "lower", "best", "epochs"}
            if unknown:
                raise ValueError(f"unknown {sorted(unknown)}")
            lower, best = (
                None if config.get(name) is None else _levels(config[name]) for name in ("lower", "best")
            )
            epochs = checks.whole("epochs", config.get("epochs", 1), 1, 10**9)
            return cls(_levels(config["upper"]), lower, best, epochs)

    def at(self, epoch: int, table: References) -> RewardBounds:
        """The window at ``epoch`` (from 0) in the unit of ``table``; ``ValueError`` where U <= L."""
        progress = min(1.0, epoch / max(1, self.epochs - 1))

        def level(ends: tuple[Level, Level]) -> float:
            first, last = (factor * table.reference(reference) for factor, reference in ends)
            return first + (last - first) * progress

        upper = level(self.upper)
        if self.best is not None:
            return RewardBounds(upper, lower=2 * level(self.best) - upper)
        assert self.lower is not None
        return RewardBounds(upper, level(self.lower))


def _levels(value: Any) -> tuple[Level, Level]:
    if isinstance(value[1], str):
        value = (value, value)
    (first, first_name), (last, last_name) = value
    first, last = (checks.number("factor", factor, -FURTHEST, FURTHEST) for factor in (first, last))
    return (first, str(first_name)), (last, str(last_name))
