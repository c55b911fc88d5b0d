"""The short form of `make torture`: all of its parts, a few hundred cases; and that it sees what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.tools.life import ROOT
from tests.tools.torture.verdicts import Case, Lost, Tally, Verdict, Wrong, judge


@pytest.mark.slow
def test_the_short_form_finds_nothing(tmp_path):
    command = [sys.executable, "-m", "tests.tools.torture", "--short", "--out", str(tmp_path / "counts.json")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert sum(counts["kills"]["counts"].values()) == 2, "a kill, and the comparison"
    assert counts["actions"]["counts"]["right answer"] > 20 < counts["actions"]["counts"]["named error"]
    assert counts["endurance"]["done"] == {
        "live images": 400,
        "images of the twin": 9500,
        "interleaved epochs": 3,
    }


def raising(error: Exception):
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("call", "valid", "verdict"),
    [
        (lambda: None, True, Verdict.RIGHT),
        (lambda: None, None, Verdict.RIGHT),
        (lambda: None, False, Verdict.ELSE),
        (raising(ValueError("seed: got -1")), False, Verdict.NAMED),
        (raising(ValueError("seed: got -1")), True, Verdict.ELSE),
        (raising(ValueError("something is wrong")), False, Verdict.ELSE),
        (raising(KeyError("seed")), False, Verdict.ELSE),
        (raising(Wrong("2, not 3")), None, Verdict.ELSE),
        (raising(Lost("the file")), None, Verdict.LOST),
    ],
)
def test_how_a_case_may_end(call, valid, verdict):
    tally = Tally()
    tally.try_case(Case("reset(seed=-1)", call, ("seed",), valid), "options 3")
    assert tally.counts == {verdict: 1} and judge(Case("", call, ("seed",), valid))[0] is verdict
    found = verdict in (Verdict.ELSE, Verdict.LOST)
    assert [each.partition(": ")[0] for each in tally.findings] == ["options 3"] * found
