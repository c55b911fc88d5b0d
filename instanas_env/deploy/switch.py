"""What a cell may do with an image, and the decision tree of ``If`` nodes that finds it.

ONNX has no switch, and each ``If`` costs onnxruntime some microseconds: what happens often should be few of
them away. A cell does nothing, runs one module, or several; Huffman's tree has the shortest way on average.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from instanas_env.search_space import SearchSpace

SEVERAL = -1
NOTHING = -2
PRIOR = {NOTHING: 0.3, SEVERAL: 0.1}
"""How often, where nothing is known; the modules alone share the rest."""


@dataclass(frozen=True)
class Fork:
    """Cases with a code below ``code`` go left, others right."""

    code: int
    left: Fork | int
    right: Fork | int


@dataclass(frozen=True)
class Switch:
    """The cases of one cell: the number of a module, :data:`SEVERAL` or :data:`NOTHING`.

    Attributes:
        tree: a fork, or the only case there is.
        order: the cases from left to right; a case's code is its place here.
    """

    tree: Fork | int
    order: tuple[int, ...]

    def code(self, row: Sequence[bool]) -> int:
        """The code of the case that a cell's modules, repaired, are."""
        on = [module for module, bit in enumerate(row) if bit]
        return self.order.index(NOTHING if not on else SEVERAL if len(on) > 1 else on[0])

    def forks(self, row: Sequence[bool]) -> int:
        """How many forks are on the way to the case of a cell's modules."""
        code, tree, passed = self.code(row), self.tree, 0
        while isinstance(tree, Fork):
            tree, passed = (tree.left if code < tree.code else tree.right), passed + 1
        return passed


def switches(space: SearchSpace, masks: Tensor | None = None) -> list[Switch]:
    """The switch of each cell.

    Args:
        space: the search space.
        masks: what images typically get, bool ``(K, num_cells, num_modules)``, repaired: their frequencies
            shape the trees. None means that none is known.
    """
    result = []
    for t, cell in enumerate(space.cells):
        modules = range(space.num_modules)
        weights = {module: (1 - sum(PRIOR.values())) / len(modules) for module in modules}
        if len(modules) > 1:
            weights[SEVERAL] = PRIOR[SEVERAL]
        if cell.keeps_shape:
            weights[NOTHING] = PRIOR[NOTHING]
        alphabetic = Switch(0, tuple(weights))
        for row in [] if masks is None else masks[:, t].tolist():
            weights[alphabetic.order[alphabetic.code(row)]] += 1
        result.append(huffman(weights))
    return result


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
