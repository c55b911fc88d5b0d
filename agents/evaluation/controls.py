"""Controls: what could refute that a controller gains by giving each image a network of its own.

- *Static*: the best fixed mask on the same meta-graph that is no slower than the controller's mean, chosen on
  validation. No gain means that one network for all would have done.
- *Oracle*: of the networks that the controller uses most, is any right? So much there would be to win.

On the same test images as the controller, so that differences have paired intervals. Others, which need no
search, are in :mod:`agents.evaluation.awareness`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.one_shot import Candidate, OneShotSearch
from instanas_env.bandit import InstanceBandit
from instanas_env.search_space import as_text
from instanas_env.seeding import generator_for
from instanas_env.training.epoch import predict_classes

RESAMPLES = 10_000
ROUNDING_MS = 1e-6  # a mean of equal latencies may lie a rounding error below them


@dataclass(frozen=True)
class Gain:
    """Accuracy of one policy above another's on the same images, and its 95 % interval."""

    difference: float
    low: float
    high: float


def paired_gain(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> Gain:
    """The gain and its interval over images: paired bootstrap, percentiles.

    An image's difference is -1, 0 or 1, so a resample is three counts from a multinomial distribution: what
    ``scipy.stats.bootstrap(method="percentile")`` draws image by image.

    Args:
        ours, theirs: which images each policy got right, bool ``(N,)``.
        seed: of the resamples.
    """
    if ours.shape != theirs.shape or ours.ndim != 1 or not len(ours):
        raise ValueError(
            f"theirs: got shape {theirs.shape} beside {ours.shape}; (N,), the same images, will do"
        )
    count = len(ours)
    won, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    shares = np.array([won, lost, count - won - lost]) / count
    drawn = np.random.default_rng(seed).multinomial(count, shares, RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / count, [0.025, 0.975])
    return Gain((won - lost) / count, float(low), float(high))


def most_used(masks: Tensor, count: int) -> Tensor:
    """The ``count`` most frequent of masks ``(N, ...)``, most frequent first; fewer if there are fewer."""
    distinct, images = torch.unique(masks.flatten(1), dim=0, return_counts=True)
    order = images.argsort(descending=True, stable=True)[:count]
    return distinct[order].unflatten(1, masks.shape[1:])


class Controls:
    """The controls of one search: of its controller, at one or more settings, on its meta-graph.

    Fixed masks are ranked on validation: those that the controller uses most, ``others``, and
    ``num_masks`` samples and mutations; the best again on all validation images.

    Args:
        val, test: bandits of the search's meta-graph on the two splits.
        settings: the controller's masks of the validation images, ``(N, ...)``, at each setting; without
            those that it answers itself.
        others: masks ``(K, num_cells, num_modules)`` that were good elsewhere.
        num_masks: to sample and mutate.
        num_networks: of the oracle.
        num_images: on which masks are ranked first, and of the test split on which the oracle is asked.
        seed: of samples and images.
    """

    def __init__(
        self,
        val: InstanceBandit,
        test: InstanceBandit,
        settings: list[Tensor],
        others: Tensor,
        num_masks: int = 100,
        num_networks: int = 24,
        num_images: int = 2000,
        seed: int = 0,
    ):
        if num_networks < 1 or num_images < 1:
            raise ValueError(
                f"num_networks, num_images: got {num_networks}, {num_images}; at least 1 will do"
            )
        self.test = test
        self.num_networks = num_networks
        self.seed = seed
        self._table = test.latency_table
        slowest = max(self._mean_ms(masks) for masks in settings) + self._table.controller + ROUNDING_MS
        # The emptiest mask is always within reach of the samples.
        emptiest = self._mean_ms(val.space.repair(torch.zeros_like(settings[0][:1])))
        self.search = OneShotSearch(val, seed, num_images, (0.0, max(slowest, emptiest)))
        # The fastest of a policy's networks is no slower than its mean, so that some mask never is.
        own = [torch.cat([most_used(masks, num_networks), self._fastest(masks)]) for masks in settings]
        for _ in self.search.rank_masks(torch.unique(torch.cat([*own, others]), dim=0)):
            pass
        self.search.search(num_masks)
        self._val_accuracy = {_key(each.mask): each.accuracy for each in self.search.candidates}
        for _ in self.search.refine(num_networks):
            pass
        count = min(num_images, len(test.image_set))
        drawn = torch.randperm(len(test.image_set), generator=generator_for(seed, 10))[:count]
        self._asked = drawn.sort().values
        self._images = test.image_set.take(self._asked)
        self._folded = test.meta_graph.folded()
        self._right: dict[tuple[bytes, bool], Tensor] = {}

    def of(self, on_val: Tensor, correct: np.ndarray, part: float = 1.0) -> dict[str, Any]:
        """The static controls and the oracle of one setting, for results.json.

        Args:
            on_val: the setting's masks of the validation images.
            correct: which test images it gets right, bool ``(N,)``.
            part: of the validation images that have one.
        """
        budget_ms = part * self._mean_ms(on_val)
        return {
            "static": self._static(budget_ms, correct),
            "static_with_controller_time": self._static(budget_ms + self._table.controller, correct),
            "oracle": self._oracle(most_used(on_val, self.num_networks), correct),
        }

    def _static(self, limit_ms: float, correct: np.ndarray) -> dict[str, Any] | None:
        """The best fixed mask of at most ``limit_ms``; None where none is so fast, as beside early exits."""
        best: Candidate = self.search.best(limit_ms + ROUNDING_MS)
        if best.latency_ms > limit_ms + ROUNDING_MS:
            return None
        right = self._rights(best.mask, whole=True).numpy()
        return {
            "mask": as_text(best.mask[None])[0],
            "latency_ms": best.latency_ms,
            "accuracy": float(right.mean()),
            "gain": vars(paired_gain(correct, right, self.seed)),
        }

    def _oracle(self, masks: Tensor, correct: np.ndarray) -> dict[str, Any]:
        """Whether any of K masks is right, image by image; and the one that was best on validation."""
        right = torch.stack([self._rights(mask, whole=False) for mask in masks])
        best = max(range(len(masks)), key=lambda k: self._val_accuracy[_key(masks[k])])
        return {
            "networks": len(masks),
            "images": len(self._images),
            "any_right": right.any(0).double().mean().item(),
            "best_single": right[best].double().mean().item(),
            "controller": float(correct[self._asked.numpy()].mean()),
        }

    def _rights(self, mask: Tensor, whole: bool) -> Tensor:
        """Which images of the test split, or of those asked, a fixed mask gets right."""
        key = (_key(mask), whole)
        if key not in self._right:
            images = self.test.image_set if whole else self._images
            self._right[key] = predict_classes(self._folded, images, mask) == images.labels
        return self._right[key]

    def _mean_ms(self, masks: Tensor) -> float:
        return self._table.lookup(masks).mean().item()

    def _fastest(self, masks: Tensor) -> Tensor:
        return masks[self._table.lookup(masks).argmin()][None]


def _key(mask: Tensor) -> bytes:
    return mask.numpy().tobytes()
