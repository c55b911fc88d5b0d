"""What the live bandit and its twin share: which images come, when a pass ends, which window holds."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from instanas_env import checks, paper, reward
from instanas_env.data import ImageSet
from instanas_env.reward import BoundsSchedule, References, RewardBounds
from instanas_env.search_space import SearchSpace

Order = Literal["shuffled", "sequential"]


@dataclass(frozen=True)
class Contexts:
    """Images that wait for an action: ``index`` int64 ``(n,)``, ``images`` uint8 ``(n, 3, H, W)``."""

    index: Tensor
    images: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def replaced(self, rows: Tensor, others: Contexts) -> Contexts:
        """A copy with ``others`` in the marked rows, bool ``(n,)``."""
        index, images = self.index.clone(), self.images.clone()
        index[rows], images[rows] = others.index, others.images
        return Contexts(index, images)


@dataclass(frozen=True)
class Outcome:
    """What became of actions; NumPy arrays of shape ``(n,)``, or ``(K, n)`` for K masks per image.

    ``mask`` is ``(..., n, num_cells, num_modules)``, after repair; empty only where a policy answered the
    image itself and no network ran (:func:`agents.evaluation.scores.score_masks`). Latencies are in ms.
    """

    reward: np.ndarray
    index: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    correct: np.ndarray
    is_success: np.ndarray
    latency_ms: np.ndarray
    reward_task: np.ndarray
    reward_latency: np.ndarray
    mask: np.ndarray
    upper_ms: np.ndarray
    lower_ms: np.ndarray
    epoch: np.ndarray

    @property
    def networks(self) -> int:
        """The number of distinct masks, where there is one for each image; an empty one is one of them."""
        return len(np.unique(self.mask.reshape(len(self.mask), -1), axis=0))


@dataclass(frozen=True)
class Rules:
    """What a bandit pays, and in which order it shows its images.

    Attributes:
        bounds: the window of R_A, in units of the cost table.
        correct_reward, wrong_reward: the two values of R_T.
        order: "shuffled" anew each epoch, or "sequential".
        shard: ``(k, n)`` where n bandits of one seed share every batch: this one draws the k-th part of it,
            all together what one would draw. Epochs and their ends are those of all.
    """

    bounds: BoundsSchedule = BoundsSchedule()
    correct_reward: float = paper.CORRECT_REWARD
    wrong_reward: float = paper.WRONG_REWARD
    order: Order = "shuffled"
    shard: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        checks.instance("bounds", self.bounds, BoundsSchedule)
        right, wrong = (
            checks.number(name, getattr(self, name)) for name in ("correct_reward", "wrong_reward")
        )
        if not right > wrong:
            raise ValueError(f"correct_reward: got {right}, not above wrong_reward {wrong}")
        checks.choice("order", self.order, get_args(Order))


BENCHMARK = Rules()
"""Those of ``gym.make``."""


class ContextualBandit(ABC):
    """Images as contexts.

    An epoch is one pass over the images without replacement. It ends when as many images as the set
    holds have been acted on; the bounds then move on.

    Args:
        space: the search space of the masks.
        image_set: the contexts.
        cost_table: knows the reference networks' costs, of which the bounds are multiples.
        rules: see :class:`Rules`.
    """

    cost_table: References
    regrets: tuple[str, ...] = ()
    """What its outcomes tell besides the fields of :class:`Outcome`."""

    def __init__(self, space: SearchSpace, image_set: ImageSet, cost_table: References, rules: Rules):
        self.space = space
        self.image_set = image_set
        self.cost_table = cost_table
        self.rules = rules
        self.correct_reward, self.wrong_reward = float(rules.correct_reward), float(rules.wrong_reward)
        self.shard, self.shards = _parts(rules.shard, len(image_set))
        self.reset(np.random.default_rng(0))
        # An inverted window fails now; in between it is linear.
        for epoch in (0, rules.bounds.epochs):
            self._bounds_at(epoch)

    # --- drawing ---------------------------------------------------------------------------------

    def reset(self, rng: np.random.Generator) -> None:
        """Start again at epoch 0 with ``rng`` for the order of the images and their augmentation."""
        self.rng = rng
        self.epoch = 0
        self._acted = 0
        self._in_window = False
        self._queue = np.empty(0, np.int64)

    def draw(self, count: int) -> Contexts:
        """The next ``count`` images; crosses into the next pass where the present one runs out."""
        count = checks.whole("count", count, 0, len(self.image_set))
        while len(self._queue) < count * self.shards:
            size = len(self.image_set)
            one_pass = self.rng.permutation(size) if self.rules.order == "shuffled" else np.arange(size)
            self._queue = np.concatenate([self._queue, one_pass])
        total = count * self.shards
        index, self._queue = self._queue[:total], self._queue[total:]
        return self.contexts(torch.from_numpy(index[self._own(count)].copy()))

    def _own(self, count: int) -> slice:
        """Which of ``count * shards`` are this shard's."""
        return slice(count * self.shard, count * (self.shard + 1))

    @abstractmethod
    def contexts(self, index: Tensor) -> Contexts:
        """The images at ``index`` ``(n,)``."""

    def images(self, contexts: Contexts) -> Tensor:
        """The images as the agent sees them, uint8 ``(n, 3, H, W)``; not to be written into."""
        return contexts.images

    # --- scoring ---------------------------------------------------------------------------------

    @property
    def bounds(self) -> RewardBounds:
        """U_t and L_t of the present epoch."""
        return self._bounds_at(self.epoch)

    def pay(self, correct: Tensor, cost: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """R_T, R_A and R, equation (2), of answers in the present window; float64 of one shape.

        Args:
            correct: bool, whether they are right.
            cost: of the networks that gave them, in the unit of the cost table.
        """
        task = reward.task_reward(correct, self.correct_reward, self.wrong_reward)
        latency = reward.latency_reward(cost, self.bounds)
        return task, latency, reward.combine(task, latency)

    def _bounds_at(self, epoch: int) -> RewardBounds:
        return self.rules.bounds.at(epoch, self.cost_table)

    @abstractmethod
    def score(self, contexts: Contexts, actions: Any) -> Outcome:
        """What ``actions`` would earn on ``contexts``. Draws nothing, changes nothing."""

    @abstractmethod
    def actions_of(self, masks: Tensor) -> Tensor:
        """The actions of repaired masks ``(n, num_cells, num_modules)``, for :meth:`score`."""

    def _window(self, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """The fields of an outcome that say when it was: its window and its epoch."""
        bounds = self.bounds
        return {
            "upper_ms": np.full(shape, bounds.upper, np.float64),
            "lower_ms": np.full(shape, bounds.lower, np.float64),
            "epoch": np.full(shape, self.epoch, np.int64),
        }

    def act(self, contexts: Contexts, actions: Any) -> tuple[Outcome, bool]:
        """Score one action an image and count the images as acted on. The flag tells whether this ended an
        epoch.

        The caller that receives True runs its end-of-epoch hooks and then calls :meth:`next_epoch`.

        Raises:
            ValueError: as :meth:`score`, also for several actions an image; nothing is counted.
        """
        outcome = self.score(contexts, actions)
        if outcome.reward.shape != (len(contexts),):
            raise ValueError(f"actions: got {len(outcome.reward)} for each image; one will do")
        self._in_window |= bool((outcome.reward_latency > 0).any())
        self._acted += len(contexts) * self.shards
        return outcome, self._acted >= len(self.image_set)

    def next_epoch(self) -> None:
        """Move the bounds on; warns if no latency of the epoch was inside them."""
        epoch, bounds, rewarded = self.epoch, self.bounds, self._in_window
        self._acted -= len(self.image_set)
        self._in_window = False
        self.epoch += 1
        if not rewarded:  # last, since a warning may be an error
            warnings.warn(
                f"epoch {epoch}: no latency fell inside the reward window ({bounds.lower:.3g},"
                f" {bounds.upper:.3g}), so R_A was 0 throughout and nothing can be learnt from it",
                stacklevel=2,
            )

    # --- resuming --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the bandit stands, in plain values; weights not included."""
        return {
            "rng": self.rng.bit_generator.state,
            "epoch": self.epoch,
            "acted": self._acted,
            "in_window": self._in_window,
            "queue": self._queue.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where another bandit of the same make stood."""
        self.rng.bit_generator.state = state["rng"]
        self.epoch, self._acted = state["epoch"], state["acted"]
        self._in_window, self._queue = state["in_window"], np.array(state["queue"], np.int64)


def _parts(shard: Any, images: int) -> tuple[int, int]:
    """``(k, n)`` of a shard as two ints, ``0 <= k < n <= images``."""
    if not isinstance(shard, (tuple, list)) or len(shard) != 2:
        raise checks.refuse("shard", shard, "(k, n) with k in 0..n - 1")
    parts = checks.whole("shard", shard[1], 1, images)
    return checks.whole("shard", shard[0], 0, parts - 1), parts
