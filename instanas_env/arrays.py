"""Checks of arrays that users give: actions, images, positions; as those of :mod:`instanas_env.checks`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from instanas_env.checks import Shown, refuse


def index(value: Any, count: int, size: int) -> Tensor:
    """``options["index"]`` as int64 ``(count,)``, each in ``0..size - 1``."""
    array = _array("options['index']", value)
    fits = array.shape == (count,) and np.issubdtype(array.dtype, np.integer)
    if not (fits and ((array >= 0) & (array < size)).all()):
        raise refuse("options['index']", value, f"{count} whole number(s) in 0..{size - 1}")
    return torch.from_numpy(array.astype(np.int64))


def reset_mask(value: Any, count: int) -> np.ndarray:
    """``options["reset_mask"]`` as bool ``(count,)`` with at least one True."""
    marked = _array("options['reset_mask']", value)
    if marked.shape != (count,) or marked.dtype != bool or not marked.any():
        came = Shown(f"{marked.dtype} {marked.shape}")
        raise refuse("options['reset_mask']", came, f"bool ({count},) with at least one True")
    return marked.copy()


def shape(name: str, value: Any) -> tuple[int, ...]:
    """The shape of an array, tensor or nested list."""
    if isinstance(value, Tensor):
        if value.is_nested:
            raise refuse(name, Shown("a nested tensor"), "an array")
        return tuple(value.shape)
    try:
        return np.shape(value)
    except ValueError as error:
        raise refuse(name, Shown("rows of different lengths"), "an array") from error


def expect_shape(name: str, value: Any, expected: tuple[int, ...], several: bool = False) -> None:
    """Refuse every shape but ``expected`` and, with ``several``, ``(K, *expected)`` with K of at least 1."""
    found = shape(name, value)
    if found == expected or (several and found and found[0] > 0 and found[1:] == expected):
        return
    stacked = str(("K", *expected)).replace("'", "")
    or_more = f" or {stacked} with K of at least 1" if several else ""
    raise refuse(name, Shown(f"shape {found}"), f"{expected}{or_more}")


def whole_numbers(name: str, value: Any, high: int) -> Tensor:
    """Whole numbers ``0..high`` of any number type, in an array, tensor or nested list, as int64 on the CPU.

    Floats that are whole are taken (SB3 sends float32). Strings, objects, NaN and complex numbers are not.
    """
    array = _array(name, value)
    if array.dtype.kind not in "biuf":
        raise refuse(name, Shown(str(array.dtype)), f"whole numbers in 0..{high}")
    right = (array >= 0) & (array <= high)
    if array.dtype.kind == "f":
        right &= array == np.floor(array)
    if not right.all():
        wrong = array[~right].flat[0]
        allowed = "only 0 and 1" if high == 1 else f"only whole numbers in 0..{high}"
        raise refuse(name, Shown(f"the value {wrong}"), allowed)
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.int64)).reshape(array.shape))


def _array(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, Tensor):
        try:
            return np.asarray(value)
        except (ValueError, TypeError, RuntimeError) as error:
            raise refuse(name, Shown(f"{type(value).__name__} ({error!s:.80})"), "an array") from error
    if value.is_meta or value.is_quantized or value.is_complex():
        kind = "a meta tensor" if value.is_meta else str(value.dtype)
        raise refuse(name, Shown(kind), "a tensor with numbers in it")
    dense = value.detach().to_dense() if value.layout is not torch.strided else value.detach()
    dense = dense.cpu().resolve_neg()
    return (dense.double() if dense.is_floating_point() else dense).numpy()


def images(name: str, value: Any, side: int) -> tuple[Tensor, bool]:
    """One image or a batch as uint8 ``(B, 3, side, side)``, and whether it was a batch.

    Channels may also come last. Integers of another type are taken where they fit in 0..255.
    """
    array = _array(name, value)
    if array.dtype.kind not in "iu" or (array.dtype != np.uint8 and ((array < 0) | (array > 255)).any()):
        low, high = (array.min(), array.max()) if array.dtype.kind in "iu" and array.size else ("", "")
        came = Shown(f"{array.dtype}" + (f" from {low} to {high}" if array.dtype.kind in "iu" else ""))
        raise refuse(name, came, "uint8 from 0 to 255")
    first, last = (3, side, side), (side, side, 3)
    if array.ndim not in (3, 4) or array.shape[-3:] not in (first, last):
        forms = f"(3, {side}, {side}) or (B, 3, {side}, {side}), or channels last,"
        raise refuse(name, Shown(f"shape {array.shape}"), forms)
    batch = array if array.ndim == 4 else array[None]
    if batch.shape[-3:] != first:
        batch = batch.transpose(0, 3, 1, 2)
    copy = np.array(batch, np.uint8, order="C")  # torch wants it writable and without negative strides
    return torch.from_numpy(copy), array.ndim == 4
