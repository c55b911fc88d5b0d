"""One validator for all JSON that is read: what a value must be is said once, and an error says where.

A specification is a function ``(value, place) -> value`` that raises ``ValueError``; :func:`record`,
:func:`items` and the others make them. ``true`` is no number here, nor is "0.5".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from instanas_env import checks
from instanas_env.checks import MAX_FLOAT, refuse

Spec = Callable[[Any, str], Any]

MAX_DEPTH = 64


def parse_json(text: str | bytes, where: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: no JSON in UTF-8, a key twice in one object, or nested more than ``MAX_DEPTH`` deep; the
            message begins with ``where``.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object's keys and values, unless a key stands there twice."""
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


def number(low: float = -MAX_FLOAT, high: float = MAX_FLOAT, above: bool = False) -> Spec:
    """Specify a finite number in ``[low, high]``, or ``(low, high]`` if ``above``; given as float."""
    return lambda value, place: checks.number(place, value, low, high, above=above)


def integer(low: int, high: int) -> Spec:
    """Specify a whole number in ``[low, high]``."""
    return lambda value, place: checks.whole(place, value, low, high)


def text(*choices: str) -> Spec:
    """Specify a string, one of ``choices`` if there are any."""

    def check(value: Any, place: str) -> str:
        """Give the string back, or refuse it."""
        if not isinstance(value, str):
            raise refuse(place, value, "a string")
        return checks.choice(place, value, choices) if choices else value

    return check


def or_none(spec: Spec) -> Spec:
    """Specify null, or a value that satisfies ``spec``."""
    return lambda value, place: None if value is None else spec(value, place)


text_or_none = or_none(text())
"""The specification of a string or null."""


def items(spec: Spec, low: int = 0, high: int = 10**7) -> Spec:
    """Specify a list of ``low`` to ``high`` values, each of which satisfies ``spec``."""

    def check(value: Any, place: str) -> list[Any]:
        """Give the checked values back, or refuse them."""
        if not isinstance(value, (list, tuple)):
            raise refuse(place, value, "a list")
        if not low <= len(value) <= high:
            count = str(low) if low == high else f"{low} to {high}"
            raise ValueError(f"{place}: got {len(value)} values; {count} will do")
        return [spec(inner, f"{place}[{position}]") for position, inner in enumerate(value)]

    return check


def record(
    needed: Mapping[str, Spec], optional: Mapping[str, Spec] | None = None, more: bool = False
) -> Spec:
    """Specify an object with the keys ``needed``, perhaps some of ``optional``, others only if ``more``."""
    known = {**needed, **(optional or {})}

    def check(value: Any, place: str) -> dict[str, Any]:
        """Give the checked values by key back, or refuse the object."""
        if not isinstance(value, Mapping):
            raise refuse(place, value, "an object")
        missing = [name for name in needed if name not in value]
        unknown = [name for name in value if name not in known]
        if missing:
            raise ValueError(f"{place}: lacks {', '.join(missing)}")
        if unknown and not more:
            names = ", ".join(f"{name!r:.60}" for name in unknown[:5])
            raise ValueError(f"{place}: unknown {names}; known are {', '.join(known)}")
        return {name: known.get(name, anything)(inner, f"{place}.{name}") for name, inner in value.items()}

    return check


def mapping(spec: Spec) -> Spec:
    """Specify an object all of whose values satisfy ``spec``."""

    def check(value: Any, place: str) -> dict[str, Any]:
        """Give the checked values by key back, or refuse the object."""
        return {name: spec(inner, f"{place}.{name}") for name, inner in json_object(value, place).items()}

    return check


def anything(value: Any, place: str) -> Any:
    """The specification that every value satisfies."""
    return value


json_object = record({}, more=True)
"""The specification of an object with any keys."""
