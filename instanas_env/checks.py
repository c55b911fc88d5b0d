"""Small checks of arguments, one at each public entrance: what is wrong is named before anything changes.

Every message names the argument, what came and what would do. All raise ``ValueError``.
"""

from __future__ import annotations

import os
import reprlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

T = TypeVar("T")
LARGEST = 1e6
"""No reward, rate or factor needs a larger number; sums of larger ones might overflow."""
MAX_FLOAT = sys.float_info.max

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 200


def refuse(name: str, came: Any, will_do: str) -> ValueError:
    """The error ``NAME: got CAME; WILL_DO will do``, with long values cut short."""
    shown = came if isinstance(came, _Shown) else _BRIEF.repr(came)
    return ValueError(f"{name}: got {shown}; {will_do} will do")


@contextmanager
def explained(message: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn a ``ValueError`` within, or one of ``kinds``, into the ``ValueError`` "MESSAGE (CAUSE)"."""
    caught: tuple[type[Exception], ...] = (ValueError, *kinds)
    try:
        yield
    except caught as error:
        cause = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{message} ({cause:.500})") from error


class _Shown(str):
    """Text that goes into a message as it is."""


def number(
    name: str, value: Any, low: float = -LARGEST, high: float = LARGEST, *, above: bool = False
) -> float:
    """``value`` as a finite float in ``low..high``; with ``above`` it must be more than ``low``."""
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not (is_number and low <= value <= high) or (above and value == low):
        start = f" {'above' if above else 'from'} {low:g}" if low > -MAX_FLOAT else ""
        end = f" to {high:g}" if high < MAX_FLOAT else ""
        raise refuse(name, value, f"a number{start}{end}")
    return float(value)


def whole(name: str, value: Any, low: int = 0, high: int | None = None) -> int:
    """``value`` as an int of at least ``low`` and at most ``high``; bool and float are refused."""
    if not _is_whole(value) or value < low or (high is not None and value > high):
        limit = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise refuse(name, value, f"a whole number {limit}")
    return int(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def pair(
    name: str, value: Any, low: float = -LARGEST, high: float = LARGEST, *, above: bool = False
) -> tuple[float, float]:
    """``value`` as two numbers, each as :func:`number` has it."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise refuse(name, value, "two numbers")
    return number(name, value[0], low, high, above=above), number(name, value[1], low, high, above=above)


def whole_or_none(name: str, value: Any, low: int = 0) -> int | None:
    """None, or ``value`` as :func:`whole` takes it."""
    return None if value is None else whole(name, value, low)


def instance(name: str, value: Any, kind: type[T]) -> T:
    """``value`` if it is a ``kind``."""
    if not isinstance(value, kind):
        raise refuse(name, value, f"a {kind.__name__}")
    return value


def flag(name: str, value: Any) -> bool:
    """``value`` as a bool; "False" and 0 are none."""
    if not isinstance(value, (bool, np.bool_)):
        raise refuse(name, value, "True or False")
    return bool(value)


def choice(name: str, value: Any, options: Sequence[str | None]) -> Any:
    """``value`` if it is one of ``options``; names of the wrong type are refused like unknown ones."""
    if not (value is None or isinstance(value, str)) or value not in options:
        raise ValueError(f"{name}: unknown {value!r:.200}; choose from {', '.join(map(str, options))}")
    return value


def render_mode(value: Any) -> str | None:
    """None or "rgb_array"."""
    return choice("render_mode", value, (None, "rgb_array"))


def autoreset_mode(value: Any) -> AutoresetMode:
    """The mode of that name, or the mode itself."""
    try:
        return AutoresetMode(value)
    except ValueError as error:
        modes = ", ".join(mode.value for mode in AutoresetMode)
        raise ValueError(f"autoreset_mode: unknown {value!r}; choose from {modes}") from error


def text(name: str, value: Any, example: str) -> str:
    """``value`` if it is a string."""
    if not isinstance(value, str):
        raise refuse(name, value, f"a name such as {example!r}")
    return value


def path(name: str, value: Any) -> Path:
    """``value`` as a path that the file system can look up; it need not exist."""
    if not isinstance(value, (str, os.PathLike)):
        raise refuse(name, value, "a path")
    try:
        os.stat(value)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # too long, no permission, a NUL within
        raise ValueError(f"{name}: cannot look up {os.fspath(value)!r:.80}: {error!s:.80}") from error
    return Path(os.fsdecode(value))


def file(name: str, value: Any) -> Path:
    """``value`` as the path of a file; ``FileNotFoundError`` if there is none."""
    place = path(name, value)
    if not place.is_file():
        raise FileNotFoundError(f"{name}: no such file: {value}")
    return place


def seed(value: Any) -> int | None:
    """A seed as Gymnasium takes it: None or a whole number that is not negative, of any integer type."""
    if value is not None and (not _is_whole(value) or value < 0):
        raise refuse("seed", value, "one whole number for all images, or None,")
    return None if value is None else int(value)


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
        came = _Shown(f"{marked.dtype} {marked.shape}")
        raise refuse("options['reset_mask']", came, f"bool ({count},) with at least one True")
    return marked.copy()


def shape(name: str, value: Any) -> tuple[int, ...]:
    """The shape of an array, tensor or nested list."""
    if isinstance(value, Tensor):
        if value.is_nested:
            raise refuse(name, _Shown("a nested tensor"), "an array")
        return tuple(value.shape)
    try:
        return np.shape(value)
    except ValueError as error:
        raise refuse(name, _Shown("rows of different lengths"), "an array") from error


def expect_shape(name: str, value: Any, expected: tuple[int, ...], several: bool = False) -> None:
    """Refuse every shape but ``expected`` and, with ``several``, ``(K, *expected)`` with K of at least 1."""
    found = shape(name, value)
    if found == expected or (several and found and found[0] > 0 and found[1:] == expected):
        return
    stacked = str(("K", *expected)).replace("'", "")
    or_more = f" or {stacked} with K of at least 1" if several else ""
    raise refuse(name, _Shown(f"shape {found}"), f"{expected}{or_more}")


def whole_numbers(name: str, value: Any, high: int) -> Tensor:
    """Whole numbers ``0..high`` of any number type, in an array, tensor or nested list, as int64 on the CPU.

    Floats that are whole are taken (SB3 sends float32). Strings, objects, NaN and complex numbers are not.
    """
    array = _array(name, value)
    if array.dtype.kind not in "biuf":
        raise refuse(name, _Shown(str(array.dtype)), f"whole numbers in 0..{high}")
    right = (array >= 0) & (array <= high)
    if array.dtype.kind == "f":
        right &= array == np.floor(array)
    if not right.all():
        wrong = array[~right].flat[0]
        allowed = "only 0 and 1" if high == 1 else f"only whole numbers in 0..{high}"
        raise refuse(name, _Shown(f"the value {wrong}"), allowed)
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.int64)).reshape(array.shape))


def _array(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, Tensor):
        try:
            return np.asarray(value)
        except (ValueError, TypeError, RuntimeError) as error:
            raise refuse(name, _Shown(f"{type(value).__name__} ({error!s:.80})"), "an array") from error
    if value.is_meta or value.is_quantized or value.is_complex():
        kind = "a meta tensor" if value.is_meta else str(value.dtype)
        raise refuse(name, _Shown(kind), "a tensor with numbers in it")
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
        came = _Shown(f"{array.dtype}" + (f" from {low} to {high}" if array.dtype.kind in "iu" else ""))
        raise refuse(name, came, "uint8 from 0 to 255")
    first, last = (3, side, side), (side, side, 3)
    if array.ndim not in (3, 4) or array.shape[-3:] not in (first, last):
        forms = f"(3, {side}, {side}) or (B, 3, {side}, {side}), or channels last,"
        raise refuse(name, _Shown(f"shape {array.shape}"), forms)
    batch = array if array.ndim == 4 else array[None]
    if batch.shape[-3:] != first:
        batch = batch.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(batch, np.uint8)), array.ndim == 4
