"""Every stage stopped by SIGKILL, SIGTERM and Ctrl-C at random moments, and called again until it is done."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from instanas_env.build import shipped
from instanas_env.latency import LatencyTable
from tests.tools.compare_runs import compare_runs, misleading, output_names, read
from tests.tools.kill_test import stage_command
from tests.tools.life import Life, temporary_files
from tests.tools.pipeline_fixtures import image_folder, searched
from tests.tools.torture.verdicts import Tally, Verdict

RESUMING = (
    "oneshot", "pretrain", "search_regression", "search_reinforce", "finetune", "benchmark",
    "search_blockdrop", "search_convnet-aig", "baseline",
)  # fmt: skip
# Of these tabulate and evaluate resume too, from parts of their own, and have no config.json of a run.
ANEW = ("export", "tabulate", "evaluate", "profile", "choose")
STAGES = tuple(stage for pair in zip(RESUMING, ANEW, strict=False) for stage in pair) + RESUMING[len(ANEW) :]
"""Both kinds in turns, so that a short run has seen both."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MEASURED = ("profile",)  # no clock says the same twice


def command_of(stage: str, run: Path) -> list[str]:
    """A stage on few images and epochs, some seconds of work."""
    place = f"--dataset folder --data-dir {image_folder()}"
    further = {
        "oneshot": "oneshot --masks 100 --mutations 100 --slowest 2 --images 20 --finalists 8 --chunk 20"
        f" --menu 6 --out {run} {place}",
        "export": f"export {shipped('reference/controller.safetensors').parent} {run / 'model.onnx'}",
        "tabulate": "tabulate --masks 8 --candidates 16 --images 20"
        f" --out {run / 'tabular.safetensors'} {place}",
        "profile": "profile --search-space lite@0.25 --modules 0 2 --fitted 60 --children 3 --repetitions 3"
        f" --out {run / 'latency.json'}",
        "choose": f"choose --snapshots 2 --dials 3 --run {run}",
        "evaluate": "evaluate --dial 0.6 --one-shot-masks 10 --one-shot-limits 1 --control-masks 3"
        f" --control-networks 4 --no-time-real --runs {searched('regression')} --out {run} {place}",
    }
    if stage in further:
        return [sys.executable, "-m", "scripts", *further[stage].split()]
    return stage_command(stage, 4, image_folder(), run)  # type: ignore[arg-type]


def begin(stage: str, run: Path) -> None:
    """What must be there before the stage."""
    if stage == "choose":
        shutil.copytree(searched("regression"), run)
    elif stage not in RESUMING:
        run.mkdir()


def unreadable(run: Path) -> list[str]:
    """What a reader would stumble over at this moment, half written or misleading."""
    found = [str(path) for path in misleading(temporary_files(run))]
    for name in output_names(run) if run.exists() else ():
        try:
            read(run / name)
        except Exception as error:  # whatever a damaged file may cause
            found.append(f"{name}: {error!s:.200}")
    return found


def differing(stage: str, expected: Path, run: Path) -> list[str]:
    """How a run differs from the unbroken one."""
    if stage in MEASURED:
        spaces = {LatencyTable.load(place / "latency.json").space for place in (expected, run)}
        return [] if len(spaces) == 1 else ["latency.json: of another search space"]
    return [
        f"{file.name}: {difference}"
        for file in compare_runs(expected, run)
        for difference in file.differences
    ]


def is_done(life: Life, number: signal.Signals) -> bool:
    """Whether a stage says by its exit code that it has done all; :func:`differing` then holds it to that.

    A signal that comes after the last line, when Python's own handlers are back, ends it without a word.
    """
    code = life.process.returncode
    return code == 0 or (code == -number and number != signal.SIGKILL and "stopped" not in life.said())


def what_is_wrong(life: Life, died: bool, number: signal.Signals) -> str:
    """Of the way in which a life ended; empty if nothing is."""
    code, said = life.process.returncode, life.said().strip()
    if life.orphans():
        return "a process lived on after it"
    if not died:
        return "" if is_done(life, number) else f"ended with {code} and {said[-300:]!r}"
    if number != signal.SIGKILL and "stopped; the same command " not in said.splitlines()[-1:][0]:
        return f"did not say how to go on, but {said[-300:]!r}"
    return ""


def kill_stage(stage: str, seed: int, kills: int, deadline: float) -> Tally:
    """Run a stage unbroken, then stopped ``kills`` times; nothing after ``deadline`` (as ``time.time()``)."""
    tally, rng = Tally(), np.random.default_rng([seed, STAGES.index(stage)])
    if time.time() > deadline:
        return tally
    out = Path(tempfile.mkdtemp(prefix="instanas-kills-"))
    run, unbroken, claims = out / "run", out / "unbroken", stage in RESUMING
    command = command_of(stage, run)
    begin(stage, run)
    with Life(command, run, claims) as life:
        seconds = life.finish()
    run.rename(unbroken)  # made in the same place, since a run's files tell where its inputs were
    begin(stage, run)
    finished = []
    for number, turn in zip(rng.permutation(len(SIGNALS)).tolist() * kills, range(kills), strict=False):
        sent, moment = SIGNALS[number], rng.uniform(0, min(1, 2 / kills) if claims else 1) * seconds
        writing = claims and sent == signal.SIGKILL and bool(rng.random() < 0.5)
        with Life(command, run, claims) as life:
            died = life.kill_after(moment, writing, sent)
            told = (
                f"{stage}, seed {seed}, {sent.name} {moment:.2f} s after its start-up: `{' '.join(command)}`"
            )
            wrong, broken = what_is_wrong(life, died, sent), unreadable(run)
        tally.add(
            told, Verdict.ELSE if wrong else Verdict.LOST if broken else Verdict.RIGHT, wrong or str(broken)
        )
        tally.done[f"kills by {sent.name}" if died else "ended before the signal"] += 1
        if is_done(life, sent):
            finished.append(run.rename(out / f"finished_{turn}"))
            begin(stage, run)
    with Life(command, run, claims) as life:
        life.finish()
    for each in [*finished, run]:
        lost = differing(stage, unbroken, each)
        told = f"{stage}, seed {seed}, stopped {kills} times, against an unbroken run"
        tally.add(told, Verdict.LOST if lost else Verdict.RIGHT, "; ".join(lost[:3]))
    tally.done["stages compared with an unbroken run"] += 1
    shutil.rmtree(out)
    return tally
