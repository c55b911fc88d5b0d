"""Several trade-offs from one search (section 4.2): the frontier, the picks A to E on it, and their files.

The paper picks controllers "by human preference by considering the accuracy and latency trade-off".
`instanas choose` writes the picks; this file says which they are and where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from instanas_env.storage import load_config, load_json
from instanas_env.training.matching import CONTROLLER
from instanas_env.validation import integer, record, text

Preference = Literal["accuracy", "balanced", "latency"]
Pick = Literal["accuracy", "balanced", "latency", "A", "B", "C", "D", "E"]
"""A preference, or the letter of a pick: A is the most accurate, the last letter the fastest."""
LETTERS = "ABCDE"
CHOICES = "choices.json"
_LETTER = text(*LETTERS)
_CHOICES = record(
    {
        "picks": record({}, dict.fromkeys(LETTERS, integer(0, 10**7))),
        "prefer": record({}, dict.fromkeys(get_args(Preference), _LETTER)),
    },
    more=True,
)


def non_dominated(accuracy: Sequence[float], latency_ms: Sequence[float]) -> list[int]:
    """Positions of the points to which no other is as fast and as accurate, and better in one; slow to fast.

    The first one of equal points counts.
    """
    fastest_first = sorted(range(len(accuracy)), key=lambda i: (latency_ms[i], -accuracy[i]))
    frontier: list[int] = []
    for i in fastest_first:
        if not frontier or accuracy[i] > accuracy[frontier[-1]]:
            frontier.append(i)
    return frontier[::-1]


def hypervolume(accuracy: Sequence[float], latency_ms: Sequence[float], slowest_ms: float) -> float:
    """The share of what could be had that these points have: 1 would be all right in no time.

    It is the area of the points that are no better than one of these in either, up to the reference point
    (nothing right, ``slowest_ms``), over that of the whole rectangle. What is slower counts nothing.
    """
    area, right = 0.0, slowest_ms
    for i in non_dominated(accuracy, latency_ms):
        if latency_ms[i] < right:
            area += (right - latency_ms[i]) * accuracy[i]
            right = latency_ms[i]
    return area / slowest_ms


def spread(latency_ms: Sequence[float], count: int) -> list[int]:
    """Positions of at most ``count`` latencies, falling ones, that lie evenly between the first and the last.

    Both ends are taken; a place between takes the nearest latency that leaves one for each place behind it.
    """
    if count < 2:
        raise ValueError(f"count: got {count}; at least 2 will do")
    total = len(latency_ms)
    if total <= count:
        return list(range(total))
    first, last = latency_ms[0], latency_ms[-1]
    chosen = [0]
    for place in range(1, count - 1):
        target = first + (last - first) * place / (count - 1)
        free = range(chosen[-1] + 1, total - (count - 1 - place))
        chosen.append(min(free, key=lambda i: abs(latency_ms[i] - target)))
    return [*chosen, total - 1]


def choose(found: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """The frontier of some points, the picks on it, and what each preference means."""
    frontier = non_dominated([p["accuracy"] for p in found], [p["latency_ms"] for p in found])
    places = spread([found[i]["latency_ms"] for i in frontier], count)
    picked = {letter: frontier[place] for letter, place in zip(LETTERS, places, strict=False)}
    letters = list(picked)
    balanced = max(letters, key=lambda letter: found[picked[letter]]["reward"])
    prefer = {"accuracy": letters[0], "balanced": balanced, "latency": letters[-1]}
    return {"points": found, "frontier": frontier, "picks": picked, "prefer": prefer}


def picks(run: Path) -> dict[str, str]:
    """The letter behind each letter and preference that `instanas choose` left in a directory of a search."""
    file = run / CHOICES
    if not file.is_file():
        raise FileNotFoundError(f"prefer: {run} has no {CHOICES}; instanas choose --run {run} makes it")
    content = _CHOICES(load_json(file), f"prefer: {file}")
    return {**{letter: letter for letter in content["picks"]}, **content["prefer"]}


def controller_file(run: Path, prefer: Pick | None = None) -> Path:
    """The controller in a run's directory: its own, or a pick; each goes with the run's meta-graph.

    Args:
        run: directory of a search, or of fine-tuning (which has no picks).
        prefer: a preference or a letter; None means the run's own controller.

    Raises:
        FileNotFoundError: nothing was picked in ``run`` yet.
        ValueError: no such pick.
    """
    if prefer is None:
        return run / CONTROLLER
    present = picks(run)
    if prefer not in present:
        raise ValueError(f"prefer: {run} has no pick {prefer!r}; choose from {', '.join(present)}")
    return run / "choices" / present[prefer] / CONTROLLER


def is_pick(controller: Path) -> bool:
    """Whether a controller's file was picked, so that its trade-off is not to be moved."""
    return "pick" in (load_config(controller).get("record") or {})


assert set(get_args(Pick)) == {*get_args(Preference), *LETTERS}
