"""The options of a stage, with what an experiment sets in them itself."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, replace
from typing import Any, TypeVar

from scripts.experiment.presets import HERE

T = TypeVar("T")


def wired(stage: str, options: T, **values: Any) -> T:
    """The options of a stage with what the experiment sets itself.

    Raises:
        ValueError: one of these was set by hand.
    """
    for entry in fields(options):  # type: ignore[arg-type]
        if entry.name in values and getattr(options, entry.name) != default(entry):
            raise ValueError(
                f"{stage}.{entry.name}: got {getattr(options, entry.name)!r}, but the experiment sets it;"
                " leave it out"
            )
    return replace(options, **values)  # type: ignore[type-var]


def default(entry: Field[Any]) -> Any:
    """Of a script's option; that of one without is :data:`HERE`."""
    return HERE if entry.default is MISSING else entry.default
