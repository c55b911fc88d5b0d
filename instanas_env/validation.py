"""One validator for all JSON that is read: what a value must be is said once, and an error says where.

A specification is a function ``(value, place) -> value`` that raises ``ValueError``; :func:`record`,
:func:`items` and the others make them. ``true`` is no number here, nor is "0.5".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

Spec = Callable[[Any, str], Any]

MAX_DEPTH = 64
MAX_FLOAT = sys.float_info.max


def parse_json(text: str | bytes, where: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: no JSON in UTF-8, a key twice in one object, or nested more than ``MAX_DEPTH`` deep; the
            message begins with ``where``.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
        return found

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError(f"{where}: nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are of this kind
        raise ValueError(f"{where}: not a JSON file ({error})") from error
    _check_depth(value, where)
    return value


def _check_depth(value: Any, where: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        containers = [inner for inner in level if isinstance(inner, (dict, list))]
        level = [x for inner in containers for x in (inner.values() if isinstance(inner, dict) else inner)]
        if not level:
            return
    raise ValueError(f"{where}: nested deeper than {MAX_DEPTH} levels")


def number(low: float = float("-inf"), high: float = float("inf"), above: bool = False) -> Spec:
    """A finite number in ``[low, high]``, or ``(low, high]`` if ``above``; given as float."""

    def check(value: Any, place: str) -> float:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        # Compared before it is turned into a float: an integer may be too large for one.
        fits = fits and abs(value) <= MAX_FLOAT and low <= value <= high and not (above and value == low)
        if not fits:
            start = f"above {low:g}" if above else f"from {low:g}"
            span = "" if (low, high) == (float("-inf"), float("inf")) else f" {start} to {high:g}"
            raise ValueError(f"{place}: got {brief(value)}; a number{span} will do")
        return float(value)

    return check


def integer(low: int, high: int) -> Spec:
    """A whole number in ``[low, high]``."""

    def check(value: Any, place: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{place}: got {brief(value)}; a whole number from {low} to {high} will do")
        return value

    return check


def text(*choices: str) -> Spec:
    """A string, one of ``choices`` if there are any."""

    def check(value: Any, place: str) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{place}: got {brief(value)}; a string will do")
        if choices and value not in choices:
            raise ValueError(f"{place}: unknown {brief(value)}; choose from {', '.join(choices)}")
        return value

    return check


def text_or_none(value: Any, place: str) -> str | None:
    """A string, or null."""
    return None if value is None else text()(value, place)


def items(spec: Spec, low: int = 0, high: int = 10**7) -> Spec:
    """A list of ``low`` to ``high`` values, each as ``spec`` has it."""

    def check(value: Any, place: str) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{place}: got {brief(value)}; a list will do")
        if not low <= len(value) <= high:
            count = str(low) if low == high else f"{low} to {high}"
            raise ValueError(f"{place}: got {len(value)} values; {count} will do")
        return [spec(inner, f"{place}[{position}]") for position, inner in enumerate(value)]

    return check


def record(
    needed: Mapping[str, Spec], optional: Mapping[str, Spec] | None = None, more: bool = False
) -> Spec:
    """An object with the keys ``needed`` and perhaps some of ``optional``; others only if ``more``."""
    known = {**needed, **(optional or {})}

    def check(value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ValueError(f"{place}: got {brief(value)}; an object will do")
        missing = [name for name in needed if name not in value]
        unknown = [name for name in value if name not in known]
        if missing:
            raise ValueError(f"{place}: lacks {', '.join(missing)}")
        if unknown and not more:
            names = ", ".join(brief(name) for name in unknown[:5])
            raise ValueError(f"{place}: unknown {names}; known are {', '.join(known)}")
        return {name: known[name](inner, f"{place}.{name}") if name in known else inner
                for name, inner in value.items()}  # fmt: skip

    return check


def mapping(spec: Spec) -> Spec:
    """An object whose values all are as ``spec`` has it."""

    def check(value: Any, place: str) -> dict[str, Any]:
        return {name: spec(inner, f"{place}.{name}") for name, inner in _objects(value, place).items()}

    return check


_objects = record({}, more=True)


def anything(value: Any, place: str) -> Any:
    """Whatever it is."""
    return value


def brief(value: Any) -> str:
    """A value as an error message shows it."""
    if isinstance(value, (dict, list, tuple)):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**20:
        return "an integer of more than 20 digits"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
