"""A policy that learns: the answers that it asks for, what it takes, and its curve on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

from agents.agent import Agent, native
from agents.evaluation.scores import score_agent
from instanas_env.callbacks import EnvCallback
from instanas_env.contextual import ContextualBandit, Outcome
from scripts.comparison.contest import Contest

POINTS = 10
"""How many a learning curve has, evenly spaced over the budget; the last is the finished policy's."""


@dataclass
class Entry:
    """A policy that may have to learn.

    Attributes:
        agent: chooses masks.
        envs: what it learns on.
        learn: lets it learn its whole budget; None if there is nothing to learn.
        tune: what is set on validation images whenever the policy is judged.
        spent: answers ("steps") and "seconds" of what does not learn but was searched for.
    """

    agent: Agent
    envs: gym.vector.VectorEnv | None = None
    learn: Callable[[], object] | None = None
    tune: Callable[[ContextualBandit], object] = lambda val: None
    spent: Mapping[str, float] = field(default_factory=lambda: {"steps": 0, "seconds": 0.0})


def let_learn(contest: Contest, entry: Entry) -> dict[str, Any]:
    """Let a policy learn.

    Returns:
        The answers that it asked for ("steps"; of the best fixed mask those of its search), the processor's
        "seconds", judging not counted, and the "curve": ``[answers, mean reward on validation images]`` of
        each of :data:`POINTS` points.
    """
    if entry.learn is None or entry.envs is None:
        return {**entry.spent, "curve": []}

    def judge() -> float:
        entry.tune(contest.val_part)
        return float(score_agent(contest.val_part, entry.agent).reward.mean())

    meter, start = Meter(entry.envs, contest.budget.steps, judge), time.process_time()
    entry.learn()
    seconds = time.process_time() - start - meter.seconds
    meter.mark()
    return {"steps": meter.answers, "seconds": round(seconds, 1), "curve": meter.curve}


class Meter(EnvCallback):
    """Watches a training environment from inside, so that any learner has a curve, whatever its loop.

    Args:
        envs: what is learnt on; only this meter's learner uses it.
        budget: answers, of which each point of the curve is a tenth.
        judge: gives the mean reward of the policy as it is; must not change it.

    Attributes:
        answers: asked for so far, by ``step`` and by ``score``.
        curve: ``[answers, reward]`` of each point so far.
        seconds: of the processor, spent on judging.
    """

    def __init__(self, envs: gym.vector.VectorEnv, budget: int, judge: Callable[[], float]):
        self.budget, self.judge = budget, judge
        self.answers, self.seconds = 0, 0.0
        self.curve: list[list[float]] = []
        bandit: Any = native(envs).bandit
        score = bandit.score

        def counted(*given: Any) -> Outcome:
            outcome = score(*given)
            self.answers += outcome.reward.size
            return outcome

        bandit.score = counted
        native(envs).add_callback(self)

    def on_step(self, outcome: Outcome) -> None:
        """Judge if a tenth of the budget has gone; the last point waits for the end."""
        if self.answers < self.budget and len(self.curve) < self.answers * POINTS // self.budget:
            self.mark()

    def mark(self) -> None:
        """Add a point to the curve."""
        start = time.process_time()
        self.curve.append([self.answers, self.judge()])
        self.seconds += time.process_time() - start
