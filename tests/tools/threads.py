"""Worlds whose processes are threads of one: what they exchange is real, and there is no start-up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from instanas_env.training.distributed import World

T = TypeVar("T")


class ThreadWorld(World):
    """A world that sums over threads."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, tensors: dict[int, Tensor]):
        super().__init__(rank, size)
        self._barrier, self._tensors = barrier, tensors

    def sum(self, tensor: Tensor) -> Tensor:
        self._tensors[self.rank] = tensor.detach().clone()
        self._barrier.wait()
        total: Any = sum(self._tensors[rank] for rank in range(self.size))
        self._barrier.wait()
        return total


def in_threads(size: int, work: Callable[[World], T]) -> list[T]:
    """What ``work`` gives in each of ``size`` worlds, by rank."""
    barrier, tensors, results = threading.Barrier(size, timeout=30), {}, {}  # type: ignore[var-annotated]

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadWorld(rank, size, barrier, tensors))
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(size)]
