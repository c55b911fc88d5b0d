"""Policies to compare with: fixed masks, random masks, and the best fixed mask of a one-shot search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.agent import Agent
from instanas_env.bandit import InstanceBandit
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.training import predict_classes


class StaticAgent(Agent):
    """The same mask ``(num_cells, num_modules)`` for every image."""

    def __init__(self, space: SearchSpace, mask: Tensor):
        super().__init__(space)
        self.mask = space.repair(mask)

    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """The mask, once for each image."""
        return self.mask.expand(len(images), -1, -1)


class RandomAgent(Agent):
    """Each module on with probability ``keep``, for each image anew."""

    def __init__(self, space: SearchSpace, keep: float = 0.5, seed: int = 0):
        super().__init__(space)
        self.keep = keep
        self.generator = generator_for(seed)

    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """A fresh draw for each image."""
        return self.space.random_masks(len(images), self.keep, self.generator)


@dataclass(frozen=True)
class Candidate:
    """A fixed mask with its accuracy on the images searched on and its latency in ms."""

    mask: Tensor
    accuracy: float
    latency_ms: float


class OneShotSearch(Agent):
    """The best fixed masks (Bender et al., 2018; section 4.2): sample, rank on validation, keep the frontier.

    Half of the masks are sampled at every density; the rest are mutations of the frontier so far, which
    makes the baseline stronger than sampling alone.

    Args:
        bandit: of the validation split.
        seed: of the samples.
        images: of the validation split that each mask is ranked on.
    """

    def __init__(self, bandit: InstanceBandit, seed: int = 0, images: int = 1000):
        super().__init__(bandit.space)
        self.bandit = bandit
        self.generator = generator_for(seed)
        count = min(images, len(bandit.image_set))
        order = torch.randperm(len(bandit.image_set), generator=self.generator)[:count]
        self.image_set = bandit.image_set.take(order)
        self.candidates: list[Candidate] = []
        self.frontier: list[Candidate] = []
        self.limit_ms = float("inf")

    def rank(self, count: int) -> Iterator[Candidate]:
        """Rank ``count`` masks, yielding each."""
        folded = self.bandit.meta_graph.folded()
        for number in range(count):
            mask = self._propose(mutate=number >= count // 2)
            predictions = predict_classes(folded, self.image_set, mask)
            accuracy = (predictions == self.image_set.labels).double().mean().item()
            candidate = Candidate(mask, accuracy, self.bandit.latency_table.lookup(mask).item())
            self.candidates.append(candidate)
            self._keep(candidate)
            yield candidate

    def search(self, count: int) -> OneShotSearch:
        """Rank ``count`` masks."""
        for _ in self.rank(count):
            pass
        return self

    def masks(self, images: Tensor, deterministic: bool = True) -> Tensor:
        """The most accurate mask found at no more than ``limit_ms``."""
        return self.best(self.limit_ms).mask.expand(len(images), -1, -1)

    def best(self, limit_ms: float) -> Candidate:
        """The most accurate candidate of at most ``limit_ms``; the fastest one if there is none."""
        if not self.frontier:
            raise ValueError("frontier: empty; call search(count) first")
        affordable = [candidate for candidate in self.frontier if candidate.latency_ms <= limit_ms]
        if affordable:
            return max(affordable, key=lambda candidate: candidate.accuracy)
        return min(self.frontier, key=lambda candidate: candidate.latency_ms)

    def menu(self, size: int, low_ms: float, high_ms: float) -> Tensor:
        """``size`` good masks ``(size, num_cells, num_modules)`` between two latencies, for a learner.

        The frontier, then the frontier of the rest, and so on (non-dominated sorting); the last of them is
        filled up in order of accuracy. A mask ranked twice counts once. Fewer if no more were ranked.
        """
        affordable = [each for each in self.candidates if low_ms <= each.latency_ms <= high_ms]
        if not affordable:
            raise ValueError(f"high_ms: no mask was ranked from {low_ms:.3g} to {high_ms:.3g} ms; rank more")
        different = {tuple(candidate.mask.flatten().tolist()): candidate for candidate in affordable}
        rest = sorted(different.values(), key=lambda candidate: (candidate.latency_ms, -candidate.accuracy))
        chosen: list[Candidate] = []
        while rest and len(chosen) < size:
            front: list[Candidate] = []  # from fast to slow: on it is what beats all faster ones
            behind: list[Candidate] = []
            for candidate in rest:
                beaten = front and candidate.accuracy <= front[-1].accuracy
                (behind if beaten else front).append(candidate)
            chosen += reversed(front)
            rest = behind
        return torch.stack([candidate.mask for candidate in chosen[:size]])

    def _propose(self, mutate: bool) -> Tensor:
        space = self.space
        if not mutate or not self.frontier:
            keep = torch.rand((), generator=self.generator).square()  # mostly sparse: that is where we look
            return space.random_masks(1, keep, self.generator)[0]
        parent = self.frontier[int(torch.randint(len(self.frontier), (), generator=self.generator))].mask
        flips = torch.rand(parent.shape, generator=self.generator) < 2 / space.num_bits
        return space.repair(parent ^ flips)

    def _keep(self, new: Candidate) -> None:
        """Add ``new`` unless something is as fast and as accurate; drop what it makes pointless."""
        if not any(_dominates(old, new) for old in self.frontier):
            self.frontier = [old for old in self.frontier if not _dominates(new, old)] + [new]


def _dominates(a: Candidate, b: Candidate) -> bool:
    """Whether ``a`` is as fast and as accurate."""
    return a.accuracy >= b.accuracy and a.latency_ms <= b.latency_ms
