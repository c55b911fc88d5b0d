"""One-shot search (Bender et al., 2018), a baseline of section 4.2: the best masks for all images alike.

Sample masks, rank them on validation with the meta-graph's weights, keep the frontier of accuracy against
latency. The paper samples 10,000 masks at random. Ours is stronger: MobileNetV2's path and the cheapest one
are always among the masks, two thirds of the samples are paths, of one module a cell or none, which a draw
of 85 bits almost never is and the best masks mostly are, and half of all are mutations of the frontier so
far.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from agents.evaluation.picks import non_dominated, spread
from instanas_env import checks
from instanas_env.bandit import InstanceBandit
from instanas_env.search_space import MOBILENET_V2_BLOCK
from instanas_env.seeding import generator_for
from instanas_env.training.epoch import predict_classes

PROPOSALS = 10_000  # masks drawn for one in range before giving up
PRICES = (0.01, 0.03, 0.1)
"""Accuracy that the latency of MobileNetV2's path must bring, on a menu; that of the cheapest path where a
space has none."""


@dataclass(frozen=True)
class Candidate:
    """A fixed mask ``(num_cells, num_modules)``, its latency in ms, and its accuracy on the images searched
    on: of all, and of each class, float64 ``(C,)``, or ``(0,)`` where no menu will be asked for.
    """

    mask: Tensor
    accuracy: float
    latency_ms: float
    class_accuracy: Tensor


class OneShotSearch:
    """The best fixed masks: sample, rank on validation, keep the frontier.

    ``StaticAgent(search.space, search.best(0.3).mask)`` is one of them as an agent.

    A third of the samples are masks of every density, sparse ones more often: there the frontier lies. A
    third are paths of random modules, a third MobileNetV2's (where a space has it, else the cheapest one),
    both less some blocks.

    Args:
        bandit: of the validation split.
        seed: of the samples.
        images: of the validation split that each mask is ranked on.
        latencies: from, to, in ms: masks outside are passed over without being ranked; None takes all.

    Attributes:
        answers: images under a mask that all rankings so far have asked for, also of what is forgotten.
    """

    def __init__(
        self,
        bandit: InstanceBandit,
        seed: int = 0,
        images: int = 1000,
        latencies: tuple[float, float] | None = None,
    ):
        table = bandit.latency_table
        low, high = latencies or (0.0, float("inf"))
        if not low < high or high < table.reference("cheapest") or low > table.reference("full"):
            reach = f"{table.reference('cheapest'):.3g} to {table.reference('full'):.3g} ms"
            raise ValueError(f"latencies: got {low:.3g} to {high:.3g} ms; masks take {reach}")
        self.bandit = bandit
        self.space = bandit.space
        self.latencies = (low, high)
        mobilenet_v2 = [self.space.mobilenet_v2_mask()] if MOBILENET_V2_BLOCK in self.space.modules else []
        self._references = torch.stack([*mobilenet_v2, table.cheapest_mask()])
        self.generator = generator_for(seed)
        count = min(checks.whole("images", images, 1), len(bandit.image_set))
        order = torch.randperm(len(bandit.image_set), generator=self.generator)[:count]
        self.image_set = bandit.image_set.take(order)
        self.candidates: list[Candidate] = []
        self.frontier: list[Candidate] = []
        self.answers = 0

    def rank(self, count: int) -> Iterator[Candidate]:
        """Rank ``count`` masks, yielding each: :meth:`known` ones, samples, then as many mutations."""
        known = self.known()[: checks.whole("count", count)]
        latency_ms = self.bandit.latency_table.lookup(known).tolist()
        drawn = (self._propose(mutate=number >= count // 2) for number in range(len(known), count))
        return self._rank(chain(zip(known, latency_ms, strict=True), drawn))

    def known(self) -> Tensor:
        """MobileNetV2's path and the cheapest one, ``(n, num_cells, num_modules)``, if they are in range."""
        low, high = self.latencies
        latency_ms = self.bandit.latency_table.lookup(self._references)
        return self._references[(low <= latency_ms) & (latency_ms <= high)]

    def sample(self, count: int, mutate: bool = False) -> Tensor:
        """``count`` masks in range ``(count, num_cells, num_modules)``, for :meth:`rank_masks`; with
        ``mutate``, mutations of the frontier so far.
        """
        return torch.stack([self._propose(mutate)[0] for _ in range(checks.whole("count", count, 1))])

    def rank_masks(self, masks: Tensor) -> Iterator[Candidate]:
        """Rank masks ``(K, num_cells, num_modules)``, repaired, in range or not, yielding each."""
        masks = self.space.repair(masks)
        return self._rank(zip(masks, self.bandit.latency_table.lookup(masks).tolist(), strict=True))

    def refine(self, count: int) -> Iterator[Candidate]:
        """Rank the ``count`` best candidates (or a few more) again, on all images; forget the others.

        Few images do to see which masks are not worth more of them (successive halving). The best are the
        frontier, then what would be the frontier without it, and so on.
        """
        checks.whole("count", count, 1)
        accuracy = [candidate.accuracy for candidate in self.candidates]
        latency = [candidate.latency_ms for candidate in self.candidates]
        chosen = [self.candidates[i] for i in best_layers(accuracy, latency, count)]
        self.image_set = self.bandit.image_set
        self.candidates, self.frontier = [], []
        return self._rank((candidate.mask, candidate.latency_ms) for candidate in chosen)

    def _rank(self, proposals: Iterable[tuple[Tensor, float]]) -> Iterator[Candidate]:
        folded = self.bandit.meta_graph.folded()
        class_sizes = torch.bincount(self.image_set.labels, minlength=len(self.image_set.classes)).double()
        for mask, latency_ms in proposals:
            predictions = predict_classes(folded, self.image_set, mask)
            self.answers += len(self.image_set)
            correct = (predictions == self.image_set.labels).double()
            by_class = torch.zeros_like(class_sizes).index_add_(0, self.image_set.labels, correct)
            candidate = Candidate(
                mask, correct.mean().item(), latency_ms, by_class / class_sizes.clamp(min=1)
            )
            self.add(candidate)
            yield candidate

    def add(self, candidate: Candidate) -> None:
        """Know a candidate that was ranked, here or by an earlier search like this one."""
        self.candidates.append(candidate)
        self._keep(candidate)

    def search(self, count: int) -> OneShotSearch:
        """Rank ``count`` masks."""
        for _ in self.rank(count):
            pass
        return self

    def best(self, limit_ms: float) -> Candidate:
        """The most accurate candidate of at most ``limit_ms``; the fastest one if there is none."""
        if not self.frontier:
            raise ValueError("frontier: empty; call search(count) first")
        affordable = [candidate for candidate in self.frontier if candidate.latency_ms <= limit_ms]
        if affordable:
            return max(affordable, key=lambda candidate: candidate.accuracy)
        return min(self.frontier, key=lambda candidate: candidate.latency_ms)

    def menu(self, size: int) -> Tensor:
        """``size`` masks ``(size, num_cells, num_modules)`` to choose between, for a learner.

        Up to a half are the frontier, or lie on it, spread evenly. But the best masks err on the same images;
        there is more to choose between masks that are good at different classes. So the menu then grows by
        whichever mask helps most a chooser who knows the class c and pays a price p for latency:

            sum over c and p of max over m in the menu of accuracy(m, c) - p latency(m)

        A mask ranked twice counts once. Fewer than ``size`` if no more were ranked.
        """
        checks.whole("size", size, 1)
        if not self.candidates:
            raise ValueError("candidates: empty; call search(count) first")
        frontier = sorted(self.frontier, key=lambda candidate: -candidate.accuracy)
        places = spread([each.latency_ms for each in frontier], size // 2) if size > 3 else range(size // 2)
        accurate = [frontier[place] for place in places]
        # The frontier comes first, so that of equal masks the one counts that is on it.
        unique = {tuple(each.mask.flatten().tolist()): each for each in [*accurate, *self.candidates]}
        pool = list(unique.values())
        accuracy = torch.stack([candidate.class_accuracy for candidate in pool])
        latency = torch.tensor([candidate.latency_ms for candidate in pool], dtype=torch.float64)
        prices = torch.tensor(PRICES) / self.bandit.latency_table.lookup(self._references[0])
        worth = accuracy - (prices.unsqueeze(1) * latency).unsqueeze(2)  # (prices, masks, classes)
        chosen = list(range(len(accurate)))
        while len(chosen) < min(size, len(pool)):
            best = worth[:, chosen].amax(1, keepdim=True) if chosen else torch.tensor(-float("inf"))
            total = torch.maximum(best, worth).sum((0, 2))
            total[chosen] = -float("inf")
            chosen.append(int(total.argmax()))
        return torch.stack([pool[i].mask for i in chosen])

    def _propose(self, mutate: bool) -> tuple[Tensor, float]:
        """The next mask in range, and its latency."""
        low, high = self.latencies
        for _ in range(PROPOSALS):
            mask = self._draw(mutate)
            latency_ms = self.bandit.latency_table.lookup(mask).item()
            if low <= latency_ms <= high:
                return mask, latency_ms
        raise ValueError(f"latencies: none of {PROPOSALS} masks drawn took {low:.3g} to {high:.3g} ms; widen")

    def _draw(self, mutate: bool) -> Tensor:
        return self._mutation() if mutate and self.frontier else self._sample()

    def _sample(self) -> Tensor:
        space, keep = self.space, torch.rand((), generator=self.generator)
        kind = int(torch.randint(3, (), generator=self.generator))
        if kind == 0:
            return space.random_masks(1, keep.square(), self.generator)[0]  # mostly sparse
        if kind == 1:
            drawn = torch.randint(space.num_modules, (space.num_cells,), generator=self.generator)
            path = space.path(drawn.tolist())
        else:
            path = self._references[0]
        kept = torch.rand(space.num_cells, generator=self.generator) < keep
        return path & (kept | space.needs_module).unsqueeze(1)

    def _mutation(self) -> Tensor:
        """Of a mask of the frontier: two bits flipped on average, or one cell given one module or none."""
        space = self.space
        parent = self.frontier[int(torch.randint(len(self.frontier), (), generator=self.generator))].mask
        if torch.rand((), generator=self.generator) < 0.5:
            flips = torch.rand(parent.shape, generator=self.generator) < 2 / space.num_bits
            return space.repair(parent ^ flips)
        cell = int(torch.randint(space.num_cells, (), generator=self.generator))
        module = int(torch.randint(space.num_modules + 1, (), generator=self.generator))
        mask = parent.clone()
        mask[cell] = torch.arange(space.num_modules) == module  # of none, if it is the last number
        return space.repair(mask)

    def _keep(self, new: Candidate) -> None:
        """Add ``new`` unless something is as fast and as accurate; drop what it makes pointless."""
        pool = [*self.frontier, new]
        kept = non_dominated([each.accuracy for each in pool], [each.latency_ms for each in pool])
        self.frontier = [pool[i] for i in sorted(kept)]


def best_layers(accuracy: Sequence[float], latency: Sequence[float], count: int) -> list[int]:
    """Positions of the frontier, of the frontier of the rest, and so on, until there are ``count``.

    Args:
        accuracy, latency: of the candidates.
        count: the layer that reaches it is taken whole.
    """
    rest = list(range(len(accuracy)))
    chosen: list[int] = []
    while rest and len(chosen) < count:
        layer = [rest[i] for i in non_dominated([accuracy[i] for i in rest], [latency[i] for i in rest])]
        chosen += layer
        rest = sorted(set(rest) - set(layer))
    return chosen
