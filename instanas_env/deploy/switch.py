"""What a cell may do with an image, and the decision tree of ``If`` nodes that finds it.

ONNX has no switch, and each ``If`` costs onnxruntime some microseconds: what happens often should be few of
them away. A cell does nothing, runs one module, several that often come together, or any others; Huffman's
tree has the shortest way on average.

A case is the number of a pattern of modules, in which module m is bit m, or :data:`ANY`.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from instanas_env.search_space import SearchSpace

ANY = -1
"""Several modules that are no case of their own; each then has an ``If``."""
NOTHING = 0
PRIOR = {NOTHING: 0.3, ANY: 0.1}
"""How often, where nothing is known; the modules alone share the rest."""
COMMON = 0.05
"""Several modules that so many images or more get are a case. The file holds them once more for it."""


@dataclass(frozen=True)
class Fork:
    """Cases with a code below ``code`` go left, others right."""

    code: int
    left: Fork | int
    right: Fork | int


@dataclass(frozen=True)
class Switch:
    """The cases of one cell.

    Attributes:
        tree: a fork, or the only case there is.
        order: the cases from left to right; a case's code is its place here.
    """

    tree: Fork | int
    order: tuple[int, ...]

    def code(self, row: Sequence[bool]) -> int:
        """The code of the case that a cell's modules, repaired, are."""
        pattern = sum(1 << module for module, bit in enumerate(row) if bit)
        return self.order.index(pattern if pattern in self.order else ANY)


def switches(space: SearchSpace, masks: Tensor | None = None) -> list[Switch]:
    """The switch of each cell.

    Args:
        space: the search space.
        masks: what images typically get, bool ``(K, num_cells, num_modules)``, repaired: their frequencies
            shape the trees. None means that none is known.
    """
    result = []
    common = 0.0 if masks is None else COMMON * len(masks)
    for t, cell in enumerate(space.cells):
        count = space.num_modules
        weights = {1 << module: (1 - sum(PRIOR.values())) / count for module in range(count)}
        if count > 1:
            weights[ANY] = PRIOR[ANY]
        if cell.keeps_shape:
            weights[NOTHING] = PRIOR[NOTHING]
        for pattern, times in typical_patterns(masks, t).items():
            case = pattern if pattern in weights or times >= common else ANY
            weights[case] = weights.get(case, 0.0) + times
        result.append(huffman(weights))
    return result


def typical_patterns(masks: Tensor | None, cell: int) -> Counter[int]:
    """How often a cell has which modules on, in masks bool ``(K, num_cells, num_modules)``."""
    if masks is None:
        return Counter()
    return Counter((masks[:, cell].long() << torch.arange(masks.shape[2])).sum(1).tolist())


def huffman(weights: dict[int, float]) -> Switch:
    """The tree in which the mean number of forks on the way to a case is least."""
    number = itertools.count()  # of equal weights the first made comes first
    heap: list = [(weight, next(number), case) for case, weight in weights.items()]
    heapq.heapify(heap)
    while len(heap) > 1:
        (one, _, left), (other, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (one + other, next(number), (left, right)))
    pairs = heap[0][2]
    order = _cases(pairs)
    return Switch(_forks(pairs, order), order)


def _cases(pairs: tuple | int) -> tuple[int, ...]:
    """The cases in pairs of pairs, from left to right."""
    return (pairs,) if isinstance(pairs, int) else (*_cases(pairs[0]), *_cases(pairs[1]))


def _forks(pairs: tuple | int, order: tuple[int, ...]) -> Fork | int:
    """Pairs of pairs as forks."""
    if isinstance(pairs, int):
        return pairs
    left, right = pairs
    return Fork(order.index(_cases(right)[0]), _forks(left, order), _forks(right, order))
