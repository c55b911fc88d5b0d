"""Torture the package: kills, fuzzed cases, faults, a million steps; and count what became of it.

    python -m tests.tools.torture                       # make torture: twenty minutes of two cores
    python -m tests.tools.torture --short               # half a minute, as tests/test_torture.py has it
    python -m tests.tools.torture --repeat commands 17  # one fuzzed case again, as a finding names it

One process stops every stage of the pipeline with SIGKILL, SIGTERM and Ctrl-C, calls it again, and compares
the result with that of an unbroken run. Another tries fuzzed actions, options, keywords, files, images and
command lines, callbacks that raise and disks that fail, and last the million of images. Every case must end
in the right answer, which is checked against an expectation of its own, or in an error that names the
argument or file. Ends with 1 if one did not, if data were lost, or if memory grew by more than 64 MB.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.tools.torture import endurance
from tests.tools.torture.faults import callbacks_case, disk_case
from tests.tools.torture.fuzz_commands import commands_case
from tests.tools.torture.fuzz_files import bytes_case, json_case, tensors_case
from tests.tools.torture.fuzz_images import images_case
from tests.tools.torture.fuzz_keywords import keywords_case
from tests.tools.torture.fuzz_steps import actions_case, options_case
from tests.tools.torture.kills import STAGES, kill_stage
from tests.tools.torture.values import Rng
from tests.tools.torture.verdicts import Case, Tally, Verdict, judge

MAX_GROWN_MB = 64.0
PARTS: dict[str, tuple[Callable[[Rng], Case], float]] = {
    "actions": (actions_case, 0.28),
    "options": (options_case, 0.22),
    "bytes of files": (bytes_case, 0.16),
    "content of files": (json_case, 0.12),
    "tensors of files": (tensors_case, 0.06),
    "images": (images_case, 0.10),
    "keywords": (keywords_case, 0.04),
    "callbacks": (callbacks_case, 0.006),
    "disks": (disk_case, 0.01),
    "commands": (commands_case, 0.004),
}
"""Fuzzed cases, and their part of all; dear ones are rare."""


@dataclass(frozen=True)
class Options:
    """How long, and how much."""

    minutes: float = 20.0
    """After which nothing new is begun, whatever is left."""
    cases: int = 20_000
    """Fuzzed ones."""
    seed: int = 0
    short: bool = False
    """A few hundred cases, one stage, few steps."""
    out: Path | None = None
    """A JSON file for the counts."""
    repeat: tuple[str, int] | None = None
    """A part and a case's number: that case alone."""


def fuzz(options: Options, count: int, until: float, results: dict[str, Tally], progress: Progress) -> None:
    """Cases of all parts in turns; each has a generator of its own, so that it can be repeated alone."""
    task = progress.add_task("fuzzed cases", total=count)
    shares = np.array([share for _, share in PARTS.values()])
    order = np.random.default_rng(options.seed).choice(len(PARTS), count, p=shares / shares.sum())
    numbers = dict.fromkeys(PARTS, 0)
    for place in order.tolist():
        if time.time() > until:
            break
        name = list(PARTS)[place]
        results[name].try_case(case(name, options.seed, numbers[name]), f"{name} {numbers[name]}")
        numbers[name] += 1
        progress.advance(task)


def case(name: str, seed: int, number: int) -> Case:
    """The ``number``-th case of a part."""
    return PARTS[name][0](np.random.default_rng([seed, list(PARTS).index(name), number]))


def endure(options: Options, until: float, tally: Tally, progress: Progress) -> None:
    """A million images and a hundred epochs, or a hundredth of them, or as many as there is time for."""
    images, epochs = (10_000, 3) if options.short else (1_000_000, 100)
    task = progress.add_task("images", total=images)
    for count in endurance.steps(tally, images, 0.05, until):
        progress.advance(task, count)
    task = progress.add_task("interleaved epochs", total=epochs)
    for count in endurance.epochs(tally, epochs, until):
        progress.advance(task, count)


def torture(options: Options, console: Console) -> dict[str, Tally]:
    """All of it; a tally of each part."""
    begun = time.time()
    until = begun + 60 * options.minutes
    results = {name: Tally() for name in ("kills", *PARTS, "endurance")}
    spawn = multiprocessing.get_context("spawn")
    with Progress(console=console) as progress, ProcessPoolExecutor(1, spawn) as pool:
        stages, kills = (STAGES[:1], 1) if options.short else (STAGES, 3)
        task = progress.add_task("stages killed", total=len(stages))

        def killed(future: Future[Tally]) -> None:
            if not future.cancelled() and future.exception() is None:
                results["kills"] += future.result()
                progress.advance(task)

        futures = [pool.submit(kill_stage, stage, options.seed, kills, until) for stage in stages]
        for future in futures:
            future.add_done_callback(killed)
        # The last fifth of the time is for endurance.
        count = min(options.cases, 300) if options.short else options.cases
        fuzz(options, count, begun + 48 * options.minutes, results, progress)
        endure(options, until, results["endurance"], progress)
        for stage, future in zip(stages, futures, strict=True):
            if (error := future.exception()) is not None:
                results["kills"].add(stage, Verdict.ELSE, f"{type(error).__name__}: {error}")
    return results


def show(results: dict[str, Tally], console: Console) -> bool:
    """The table of counts, and every finding; True if there is none."""
    total = Tally()
    table = Table("part", "tried", *(verdict.value for verdict in Verdict), "memory grown, MB")
    for tally in results.values():
        total += tally
    for name, tally in [*results.items(), ("all", total)]:
        counts = [tally.counts[verdict] for verdict in Verdict]
        grown = f"{tally.grown_mb:.1f}" if name in ("endurance", "all") else ""
        table.add_row(name, *(f"{count:,}" for count in (sum(counts), *counts)), grown)
    for finding in total.findings:
        console.print(finding, markup=False, style="red")
    console.print(table)
    console.print(", ".join(f"{count:,} {name}" for name, count in total.done.items()))
    return not total.findings and total.grown_mb <= MAX_GROWN_MB


def main(options: Options) -> bool:
    """Torture, print, write; True if all is well."""
    torch.set_num_threads(1)
    console = Console(width=110, file=sys.stdout)  # as it is now: cases are silenced
    if options.repeat is not None:
        name, number = options.repeat
        repeated = case(name, options.seed, number)
        console.print(repeated.told, *judge(repeated), markup=False)
        return not judge(repeated)[1]
    results = torture(options, console)
    if options.out is not None:
        content = {
            name: {
                "counts": {verdict.value: tally.counts[verdict] for verdict in Verdict},
                "done": dict(tally.done),
                "grown_mb": tally.grown_mb,
                "findings": tally.findings,
            }
            for name, tally in results.items()
        }
        options.out.write_text(json.dumps({"seed": options.seed, **content}, indent=1) + "\n")
    return show(results, console)


if __name__ == "__main__":
    sys.exit(0 if main(tyro.cli(Options, description=__doc__)) else 1)
