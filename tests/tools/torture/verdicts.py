"""A case, how it ended, and how many ended how."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from enum import Enum
from io import StringIO

NAMED_ERRORS = (ValueError, TypeError, FileNotFoundError)


class Verdict(Enum):
    """How a case ended; the values are headings of the table."""

    RIGHT = "right answer"
    NAMED = "named error"
    ELSE = "anything else"
    LOST = "data lost"


class Lost(Exception):
    """What was there before is there no longer: a file, a count, the state of an environment."""


class Wrong(Exception):
    """An answer, but not the right one."""


@dataclass(frozen=True)
class Case:
    """One call, and what may become of it.

    Attributes:
        told: the call in words, so that a person can repeat it.
        call: makes it; :class:`Wrong` for a wrong answer, :class:`Lost` for lost data.
        names: an error's message must have one of them.
        valid: whether it must be answered (True) or refused (False); None if either will do.
        errors: kinds of error that will do.
    """

    told: str
    call: Callable[[], None]
    names: tuple[str, ...]
    valid: bool | None = None
    errors: tuple[type[BaseException], ...] = NAMED_ERRORS


def judge(case: Case) -> tuple[Verdict, str]:
    """Make the call; how it ended, and why that is wrong where it is."""
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            case.call()
    except Lost as error:
        return Verdict.LOST, str(error)
    except case.errors as error:
        if case.valid is True:
            return Verdict.ELSE, f"refused, though it is right: {type(error).__name__}: {error!s:.300}"
        if not any(name in str(error) for name in case.names):
            return (
                Verdict.ELSE,
                f"the error names none of {case.names}: {type(error).__name__}: {error!s:.300}",
            )
        return Verdict.NAMED, ""
    except Exception as error:
        return Verdict.ELSE, f"{type(error).__name__}: {error!s:.300}"
    if case.valid is False:
        return Verdict.ELSE, "accepted in silence"
    return Verdict.RIGHT, ""


@dataclass
class Tally:
    """Counts of one part.

    Attributes:
        counts: of verdicts.
        findings: a line for each case that ended as it must not.
        grown_mb: by which memory grew.
        done: how much of other things was done, such as steps.
    """

    counts: Counter[Verdict] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    grown_mb: float = 0.0
    done: Counter[str] = field(default_factory=Counter)

    def add(self, told: str, verdict: Verdict, why: str = "") -> None:
        """Count one case; the reproducer of one that must not be is kept."""
        self.counts[verdict] += 1
        if verdict in (Verdict.ELSE, Verdict.LOST):
            self.findings.append(f"{told}: {why}")

    def try_case(self, case: Case, where: str) -> None:
        """Judge a case and count it."""
        verdict, why = judge(case)
        self.add(f"{where}: {case.told}", verdict, why)

    def __iadd__(self, other: Tally) -> Tally:
        self.counts += other.counts
        self.findings += other.findings
        self.grown_mb = max(self.grown_mb, other.grown_mb)
        self.done += other.done
        return self
