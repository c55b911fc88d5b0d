"""Small checks of arguments, one at each public entrance: what is wrong is named before anything changes.

Every message names the argument, what came and what would do. All raise ``ValueError``. Arrays are checked in
:mod:`instanas_env.arrays`, what was read from JSON in :mod:`instanas_env.validation`.
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
from gymnasium.vector import AutoresetMode

T = TypeVar("T")
LARGEST = 1e6
"""No reward, rate or factor needs a larger number; sums of larger ones might overflow."""
MAX_FLOAT = sys.float_info.max

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 200


def refuse(name: str, came: Any, will_do: str) -> ValueError:
    """The error ``NAME: got CAME; WILL_DO will do``, with long values cut short."""
    shown = came if isinstance(came, Shown) else _BRIEF.repr(came)
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


class Shown(str):
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
    name = value.value if isinstance(value, AutoresetMode) else value
    return AutoresetMode(choice("autoreset_mode", name, [mode.value for mode in AutoresetMode]))


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
