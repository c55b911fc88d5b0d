"""Values that nobody should send, and good ones in unusual clothes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

T = TypeVar("T")
Rng = np.random.Generator
NAN, INF = float("nan"), float("inf")


def pick(rng: Rng, values: Sequence[T]) -> T:
    """One of them."""
    return values[int(rng.integers(len(values)))]


ODD: tuple[Callable[[], Any], ...] = (
    lambda: "", lambda: "0.5", lambda: "False", lambda: "\0", lambda: "x" * 5000, lambda: b"bytes", object,
    lambda: 1j, lambda: [], lambda: {}, lambda: {"a": 1}, lambda: [1, [2, 3]], set, lambda: range(3),
    lambda: lambda: 0, lambda: Path("/nowhere/at/all"), lambda: np.array([0.5, NAN]), lambda: int,
    lambda: np.array(["a"]), lambda: np.empty(0), lambda: torch.tensor([0.5]), lambda: np.datetime64("now"),
    lambda: np.array([(1, 2.0)], "i4,f4"), lambda: torch.empty(2, device="meta"), lambda: iter([1]),
    lambda: [None] * 85, lambda: float, lambda: slice(3), lambda: Ellipsis, lambda: "\ud800",
)  # fmt: skip
NO_COUNTS = (NAN, INF, -INF, -1, 0.5, 1e308, -(10**30), "1", "many", None, [3], {"n": 3}, 1j, b"1")
"""Of which none is a whole number from 0 on."""
NO_NUMBERS = (NAN, INF, -INF, 1e308, -1e308, 10**400, "0.5", "nan", [0.5], {}, 1j, b"1", object())
"""Of which none is a number of reasonable size."""


def odd(rng: Rng) -> Any:
    """No number, no name, no path of anything."""
    return pick(rng, ODD)()


def told(value: Any) -> str:
    """A value as a reproducer shows it."""
    kind = f"{value.dtype} {tuple(value.shape)} " if isinstance(value, (np.ndarray, torch.Tensor)) else ""
    return f"{type(value).__name__} {kind}{value!r:.120}".replace("\n", "")


DTYPES = ("i1", "u1", "<i2", ">i4", "i8", "u8", "f2", ">f4", "f8", "g")
TORCH_DTYPES = (
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64,
)  # fmt: skip


def disguised(rng: Rng, array: np.ndarray) -> Any:
    """Whole numbers 0..127 as another container, type or layout of memory that means the same."""
    if array.max(initial=0) <= 1 and rng.random() < 0.1:
        return array.astype(bool)
    kind = int(rng.integers(8))
    if kind == 0:
        return array.tolist()
    if kind == 1 and array.ndim:
        return tuple(array.tolist())
    if kind <= 3:
        made = torch.from_numpy(array).to(pick(rng, TORCH_DTYPES))
        if made.is_floating_point() and rng.random() < 0.3:
            made.requires_grad_()
        elif made.ndim and made.dtype != torch.bfloat16 and rng.random() < 0.2:
            made = made.to_sparse()
        return made
    made = array.astype(pick(rng, DTYPES))
    if kind == 4 and array.ndim:
        made = np.asfortranarray(made)
    if kind == 5 and array.ndim:
        made = made[::-1].copy()[::-1]
    if kind == 6:
        made.flags.writeable = False
    return made


def spoiled(rng: Rng, array: np.ndarray, high: int) -> Any:
    """Actions ``array`` of 0..high, made wrong in one way: a value, the type or the shape."""
    flat = array.astype(float).reshape(-1)
    kind = int(rng.integers(9))
    if kind <= 2:
        worse = (high + 1, -1, NAN, INF, -INF, 0.5, 1e308, 2.0**63, -1e-300)
        flat[rng.integers(len(flat))] = pick(rng, worse)
        changed = flat.reshape(array.shape)
        return changed if rng.random() < 0.7 else changed.tolist()
    if kind == 3:
        return array.astype(pick(rng, ("U3", "S3", "O", "c8", "M8[s]", "m8[s]", "V4")))
    if kind == 4:
        return torch.from_numpy(array).to(pick(rng, ("meta",))) if rng.random() < 0.3 else 1j * array + 1j
    if kind == 5:
        big = array.astype(object)
        big.reshape(-1)[0] = 2**70
        return big.tolist()
    shapes = [(*array.shape, 1), (*array.shape, 2, 2), (len(flat) + 1,), (0,), (1, 1, *array.shape)]
    if array.ndim:
        shapes += [(), (*array.shape[:-1], array.shape[-1] + 1), (*array.shape[:-1], 0), array.shape[::-1]]
    shape = pick(rng, [s for s in shapes if s != array.shape])
    zeros = np.zeros(shape, np.int64)
    return zeros if rng.random() < 0.5 else zeros.tolist()
