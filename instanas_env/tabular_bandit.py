"""The twin of the bandit: rewards looked up in a table of answers, and how far they are from the best.

Images come in the order in which the live bandit shows them under the same seed, windows move as there, and
rewards are equal to the bit: the functions of :mod:`instanas_env.reward` make both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instanas_env.contextual import BENCHMARK, Contexts, ContextualBandit, Outcome, Rules
from instanas_env.data import ImageSet
from instanas_env.reward import RewardBounds
from instanas_env.tabulated import Tabulated

CHUNK = 4096  # images at a time, to find the best mask of each


@dataclass(frozen=True)
class TabularOutcome(Outcome):
    """An outcome, and what three oracles would have earned more on the same image, float64.

    Attributes:
        regret_image: the best mask for this image; never negative.
        regret_class: the one mask that is best, on average over the split, for this image's class.
        regret_fixed: the one mask that is best on average over the split. Like the one before it may be
            negative for an image; over a pass the sums are at most that of ``regret_image``.
    """

    regret_image: np.ndarray
    regret_class: np.ndarray
    regret_fixed: np.ndarray


@dataclass(frozen=True)
class Judged:
    """What the masks of a table are worth under one window.

    Attributes:
        reward_task: R_T of a wrong and of a right answer, ``(2,)``.
        reward_latency: R_A of each mask, ``(K,)``.
        reward: of a wrong and of a right answer with each mask, ``(2, K)``.
        best_of_image: the reward of each image's best mask, ``(N,)``.
        class_arms: the best mask of each class, ``(C,)``.
        fixed_arm: the best mask of all.
    """

    reward_task: np.ndarray
    reward_latency: np.ndarray
    reward: np.ndarray
    best_of_image: np.ndarray
    class_arms: np.ndarray
    fixed_arm: int


class TabularBandit(ContextualBandit):
    """Images as contexts, the masks of a table as arms; an arm is a number, 0 to K - 1.

    Args:
        table: the answers; it also is the latency table.
        split: which of its splits.
        image_set: the images of that split.
        rules: what it pays, and in which order images come; without shards.

    Attributes:
        correct: bool ``(N, K)``.
    """

    regrets = ("regret_image", "regret_class", "regret_fixed")

    def __init__(self, table: Tabulated, split: str, image_set: ImageSet, rules: Rules = BENCHMARK):
        self.correct = table.correct(split)
        if len(self.correct) != len(image_set):
            raise ValueError(f"table: has {len(self.correct)} images of {split!r}; got {len(image_set)}")
        super().__init__(table.space, image_set, table, rules)
        self.table = self.latency_table = table
        self._masks = table.masks.numpy()
        self._latency_ms = table.latency_ms.numpy()
        self._labels = image_set.labels.numpy()
        self._of_bounds: tuple[RewardBounds, Judged] | None = None

    def contexts(self, index: Tensor) -> Contexts:
        """The images' numbers. Their pixels stay where they are: see :meth:`images`."""
        return Contexts(index, torch.empty(len(index), 0, dtype=torch.uint8))

    def images(self, contexts: Contexts) -> Tensor:
        return self.image_set.images[contexts.index]

    # --- scoring ---------------------------------------------------------------------------------

    @property
    def judged(self) -> Judged:
        """What the masks are worth under the present window."""
        bounds = self.bounds
        if self._of_bounds is None or self._of_bounds[0] != bounds:
            self._of_bounds = bounds, self._judge()
        return self._of_bounds[1]

    def score(self, contexts: Contexts, actions: Any) -> TabularOutcome:
        """What ``actions``, int64 ``(n,)`` or ``(K, n)``, would earn. Draws nothing, changes nothing."""
        judged = self.judged
        arm = np.asarray(actions)
        index = np.broadcast_to(contexts.index.numpy(), arm.shape)
        correct, label = self.correct[index, arm], self._labels[index]
        right = correct.view(np.int8)
        earned = judged.reward[right, arm]
        of_class, of_all = judged.class_arms[label], judged.fixed_arm
        return TabularOutcome(
            reward=earned,
            index=index.copy(),
            label=label,
            prediction=np.where(correct, label, -1),
            correct=correct,
            is_success=correct.copy(),
            latency_ms=self._latency_ms[arm],
            reward_task=judged.reward_task[right],
            reward_latency=judged.reward_latency[arm],
            mask=self._masks[arm],
            **self._window(arm.shape),
            regret_image=judged.best_of_image[index] - earned,
            regret_class=judged.reward[self.correct[index, of_class].view(np.int8), of_class] - earned,
            regret_fixed=judged.reward[self.correct[index, of_all].view(np.int8), of_all] - earned,
        )

    def actions_of(self, masks: Tensor) -> Tensor:
        """The numbers of masks, int64 ``(n,)``; ``ValueError`` for a mask that is not in the table."""
        arms = {mask.tobytes(): arm for arm, mask in enumerate(self._masks)}
        found = [arms.get(mask.tobytes(), -1) for mask in masks.numpy()]
        if -1 in found:
            raise ValueError(f"masks: got one that is not among the {len(arms)} of the table")
        return torch.tensor(found)

    def _judge(self) -> Judged:
        task, latency, earned = self.pay(torch.tensor([[False], [True]]), self.table.latency_ms)
        of_answer = earned.numpy()
        wrong, right = of_answer
        parts = [self.correct[start : start + CHUNK] for start in range(0, len(self.correct), CHUNK)]
        sizes = np.bincount(self._labels, minlength=len(self.image_set.classes))[:, None]
        hits = np.stack([self.correct[self._labels == c].sum(0) for c in range(len(sizes))])
        total = hits * right + (sizes - hits) * wrong  # (C, K)
        return Judged(
            reward_task=task.flatten().numpy(),
            reward_latency=latency.numpy(),
            reward=of_answer,
            best_of_image=np.concatenate([np.where(part, right, wrong).max(1) for part in parts]),
            class_arms=total.argmax(1),
            fixed_arm=int(total.sum(0).argmax()),
        )
