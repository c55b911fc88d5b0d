"""The contextual bandit behind both environments: draws images, turns masks into rewards.

This is the one place where an action becomes a reward:
actions -> repair -> meta-graph -> correct -> R_T; table -> z -> R_A(z; U_t, L_t); equation (2).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from instanas_env import checks, reward
from instanas_env.data import DRAWS_PER_IMAGE, Augmentation, ImageSet, augment
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.reward import BoundsSchedule, RewardBounds

Order = Literal["shuffled", "sequential"]


@dataclass(frozen=True)
class Contexts:
    """Images that wait for an action: ``index`` int64 ``(n,)``, ``images`` uint8 ``(n, 3, H, W)``."""

    index: Tensor
    images: Tensor

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Outcome:
    """What became of actions; NumPy arrays of shape ``(n,)``, or ``(K, n)`` for K masks per image.

    ``mask`` is ``(..., n, num_cells, num_modules)``, after repair. Latencies are in ms.
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


class InstanceBandit:
    """Images as contexts, masks as arms.

    An epoch is one pass over the images without replacement. It ends when as many images as the set
    holds have been acted on; the bounds then move on.

    Args:
        meta_graph: what the masks choose from. :meth:`refresh` after changing its weights.
        image_set: the contexts.
        latency_table: gives ``latency_ms``.
        cost_table: what R_A judges; None means the latency table.
        bounds: the window of R_A, in units of the cost table.
        correct_reward, wrong_reward: the two values of R_T.
        order: "shuffled" anew each epoch, or "sequential".
        augmentation: None shows the images as they are.
        autocast: let convolutions compute in bfloat16, for GPUs that are made for it.
        shard: ``(k, n)`` where n bandits of one seed share every batch: this one draws the k-th part of it,
            all together what one would draw. Epochs and their ends are those of all.

    Attributes:
        folded: the copy of the meta-graph that predicts, as it was at the last :meth:`refresh`.
    """

    def __init__(
        self,
        meta_graph: MetaGraph,
        image_set: ImageSet,
        latency_table: LatencyTable,
        cost_table: LatencyTable | None = None,
        bounds: BoundsSchedule | None = None,
        correct_reward: float = 1.0,
        wrong_reward: float = -1.0,
        order: Order = "shuffled",
        augmentation: Augmentation | None = None,
        autocast: bool = False,
        shard: tuple[int, int] = (0, 1),
    ):
        checks.choice("order", order, ("shuffled", "sequential"))
        correct_reward = checks.number("correct_reward", correct_reward)
        wrong_reward = checks.number("wrong_reward", wrong_reward)
        if not correct_reward > wrong_reward:
            raise ValueError(f"correct_reward: got {correct_reward}, not above wrong_reward {wrong_reward}")
        self.meta_graph = meta_graph
        self.space = meta_graph.space
        self.image_set = image_set
        self.latency_table = latency_table
        self.cost_table = cost_table or latency_table
        self.bounds_schedule = bounds or BoundsSchedule()
        self.correct_reward, self.wrong_reward = correct_reward, wrong_reward
        self.order: Order = order
        self.augmentation = augmentation
        self.autocast = checks.flag("autocast", autocast)
        self.shard, self.shards = _parts(shard, len(image_set))
        self.refresh()
        self.reset(np.random.default_rng(0))
        for epoch in (
            0,
            self.bounds_schedule.epochs,
        ):  # an inverted window fails now; in between it is linear
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
        while len(self._queue) < count * self.shards:
            size = len(self.image_set)
            one_pass = self.rng.permutation(size) if self.order == "shuffled" else np.arange(size)
            self._queue = np.concatenate([self._queue, one_pass])
        total = count * self.shards
        index, self._queue = self._queue[:total], self._queue[total:]
        return self.contexts(torch.from_numpy(index[self._own(count)].copy()))

    def contexts(self, index: Tensor) -> Contexts:
        """The images at ``index`` ``(n,)``, augmented if the bandit augments."""
        images = self.image_set.images[index]
        if self.augmentation is not None:
            uniforms = torch.from_numpy(self.rng.random((len(index) * self.shards, DRAWS_PER_IMAGE)))
            images = augment(images, self.augmentation, uniforms[self._own(len(index))])
        return Contexts(index, images)

    def _own(self, count: int) -> slice:
        """Which of ``count * shards`` are this shard's."""
        return slice(count * self.shard, count * (self.shard + 1))

    # --- scoring ---------------------------------------------------------------------------------

    @property
    def bounds(self) -> RewardBounds:
        """U_t and L_t of the present epoch."""
        return self._bounds_at(self.epoch)

    def score(self, contexts: Contexts, actions: Any) -> Outcome:
        """What ``actions`` would earn on ``contexts``. Draws nothing, changes nothing.

        Args:
            contexts: n images.
            actions: ``(n, num_bits)``, or ``(K, n, num_bits)`` for K masks per image, of 0 and 1.

        Raises:
            ValueError: another shape, or another value than 0 and 1.
        """
        self._check_shape(contexts, actions, several=True)
        bits = checks.whole_numbers("actions", actions, 1).bool()
        masks = self.space.repair(bits.unflatten(-1, (self.space.num_cells, self.space.num_modules)))
        prediction = self._predict(contexts, masks)
        label = self.image_set.labels[contexts.index].expand(prediction.shape)
        correct = prediction == label
        latency = self.latency_table.lookup(masks)
        cost = latency if self.cost_table is self.latency_table else self.cost_table.lookup(masks)
        bounds = self.bounds
        reward_task = reward.task_reward(correct, self.correct_reward, self.wrong_reward)
        reward_latency = reward.latency_reward(cost, bounds)

        def constant(value: float, dtype: type) -> np.ndarray:
            return np.full(correct.shape, value, dtype)

        return Outcome(
            reward=reward.combine(reward_task, reward_latency).numpy(),
            index=contexts.index.expand(correct.shape).numpy().copy(),
            label=label.numpy().copy(),
            prediction=prediction.numpy(),
            correct=correct.numpy(),
            is_success=correct.numpy().copy(),
            latency_ms=latency.numpy(),
            reward_task=reward_task.numpy(),
            reward_latency=reward_latency.numpy(),
            mask=masks.numpy(),
            upper_ms=constant(bounds.upper, np.float64),
            lower_ms=constant(bounds.lower, np.float64),
            epoch=constant(self.epoch, np.int64),
        )

    def _check_shape(self, contexts: Contexts, actions: Any, several: bool) -> None:
        """Refuse actions other than ``(n, num_bits)`` or, if there may be several, ``(K, n, num_bits)``."""
        shape, one = checks.shape("actions", actions), (len(contexts), self.space.num_bits)
        if shape != one and not (several and len(shape) == 3 and shape[1:] == one and shape[0] > 0):
            or_more = f" or (K, {one[0]}, {one[1]}) with K of at least 1" if several else ""
            raise ValueError(f"actions: got shape {shape}; {one}{or_more} will do")

    def act(self, contexts: Contexts, actions: Any) -> tuple[Outcome, bool]:
        """Score ``(n, num_bits)`` and count the images as acted on. The flag tells whether this ended an
        epoch.

        The caller that receives True runs its end-of-epoch hooks and then calls :meth:`next_epoch`.

        Raises:
            ValueError: as :meth:`score`, also for K masks per image; nothing is counted.
        """
        self._check_shape(contexts, actions, several=False)
        outcome = self.score(contexts, actions)
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

    def refresh(self) -> None:
        """Take over the meta-graph's present weights."""
        self.folded = self.meta_graph.folded()

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

    # --- inside ----------------------------------------------------------------------------------

    def _bounds_at(self, epoch: int) -> RewardBounds:
        return self.bounds_schedule.at(epoch, self.cost_table)

    @torch.inference_mode()
    def _predict(self, contexts: Contexts, masks: Tensor) -> Tensor:
        """Predicted class of each mask, ``(n,)`` or ``(K, n)``."""
        device = next(self.folded.parameters()).device
        images = self.image_set.normalize(contexts.images.to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
            return self.folded(images, masks).argmax(-1).cpu()


def _parts(shard: Any, images: int) -> tuple[int, int]:
    """``(k, n)`` of a shard as two ints, ``0 <= k < n <= images``."""
    if not isinstance(shard, (tuple, list)) or len(shard) != 2:
        raise checks.refuse("shard", shard, "(k, n) with k in 0..n - 1")
    parts = checks.whole("shard", shard[1], 1, images)
    return checks.whole("shard", shard[0], 0, parts - 1), parts
