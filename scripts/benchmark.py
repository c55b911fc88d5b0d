"""Rank policies on the frozen meta-graph: train each over several seeds, compare on the test split.

    instanas benchmark --out runs/benchmark --dataset fashion_mnist --seeds 5 --jobs 2
    instanas benchmark --out runs/mine --policies fixed reinforce ppo my_module:MyPolicy
    instanas benchmark --out runs/twin --env InstaNASTabular-v1 --policies random fixed linucb dqn
    instanas benchmark --verify runs/benchmark/benchmark.json

A policy is a name (random, fixed, regression, early-exit, reinforce, unnamed, paper, shipped, linucb,
convnet-aig, blockdrop; of Stable-Baselines3: ppo, a2c, trpo, dqn), a .safetensors file, a .zip of
Stable-Baselines3, or ``module:Class``: made as ``Class(envs, seed=0)``, trained by ``learn(steps)`` if it has
that, and asked by ``predict(images, deterministic=True)``, which gives ``(actions, None)``. Resumes after the
last finished ones. Writes ``benchmark.json``, ``leaderboard.md``, and for each policy and seed its figures
and a replay, which ``--verify`` scores again; `instanas report` draws the frontier and the learning curves.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from instanas_env.storage import load_json, save_json, write_atomic
from instanas_env.training.run_directory import FREE, RunDirectory, machine
from scripts import options as shared
from scripts.begin import begin
from scripts.comparison import policies, ranking, tables
from scripts.comparison.contest import LIVE, TWIN, Budget, Contest
from scripts.comparison.verify import verify


@dataclass(frozen=True, kw_only=True)
class Options(Budget, shared.Compute, shared.Weights, shared.Data):
    """Which policies, on what, how long, how often."""

    out: Path = Path("runs/benchmark")
    """Directory of the run."""
    policies: tuple[str, ...] = ("random", "fixed", "regression", "reinforce")
    env: Literal["InstaNAS-v1", "InstaNASTabular-v1"] = "InstaNAS-v1"
    """The second takes the policies that choose from K masks: random, fixed, linucb, ppo, a2c, trpo, dqn, and
    models and classes that do."""
    table: Path | None = None
    """The twin's file, from `instanas tabulate`; by default the shipped one."""
    seeds: int = 5
    seed: int = 0
    """The first."""
    trust: bool = False
    """Load .zip files, which may run code of whoever wrote them."""
    clock: int = 0
    """Time the ONNX file of each of our policies on so many test images; best on a quiet machine."""
    jobs: int = 1
    """Processes at a time, each for a policy and a seed; the results are the same."""
    verify: Path | None = None
    """A benchmark.json whose replays are scored again; nothing else is done."""


FILES = ("data_dir", "meta_graph", "latency_table", "table")
"""Arguments of the environment that may lie elsewhere on another machine."""
MAY_CHANGE = ("seeds", "policies", "trust", "clock", "jobs", "verify")
"""Options that change no row that is there already."""

UNREAD = {LIVE: ("table",), TWIN: ("dataset", "meta_graph", "latency_table")}
"""Arguments that the other environment has."""
UNTOLD = ("out", "jobs", "verify", "device")
"""Options that change no figure."""
TOLD = ("policies", "seeds", "steps")
"""Those that are told even where they are the defaults."""


def environment(options: Options) -> dict[str, str]:
    """Keyword arguments of the environment; paths as strings, so that they are JSON.

    Raises:
        ValueError: an option that this environment does not read.
    """
    unread = UNREAD[options.env]
    for entry in fields(options):
        if entry.name in unread and getattr(options, entry.name) != entry.default:
            raise ValueError(f"{entry.name}: {options.env} reads none; leave it out")
    if options.env != TWIN:
        return shared.environment(options)
    given = {"table": options.table, "data_dir": options.data_dir}
    return {name: str(value) for name, value in given.items() if value is not None}


def check(options: Options, device: str = "cpu") -> None:
    """Print what scoring the replays of a record again gives; files lie where it says, or the options do."""
    assert options.verify is not None
    given = environment(replace(options, env=load_json(options.verify)["env"]))
    elsewhere = {name: value for name, value in given.items() if name in FILES}
    for line in verify(options.verify, elsewhere, device):
        print(line)


def command(options: Options) -> str:
    """What to type for the same leaderboard: all options but those that change no figure."""
    told = ["instanas", "benchmark"]
    for entry in fields(options):
        value = getattr(options, entry.name)
        if entry.name in UNTOLD or (value == entry.default and entry.name not in TOLD):
            continue
        words = [str(each) for each in value] if isinstance(value, tuple) else [str(value)]
        told += [f"--{entry.name.replace('_', '-')}", *([] if value is True else words)]
    return shlex.join(told)


def main(options: Options) -> None:
    """Make what is missing, print a line for each policy and seed, write."""
    world = begin(options)
    device = str(world.device)
    if options.verify is not None:
        check(options, device)
        return
    run = RunDirectory(options.out, options, free=(*FREE, *MAY_CHANGE))
    contest = Contest.of(options, environment(options), device)
    for name in options.policies:
        policies.maker(contest, name)
    run.read(**contest.files)
    run.bind(val=contest.val.image_set, test=contest.test.image_set)
    run.claim()
    seeds = range(options.seed, options.seed + options.seeds)
    results = []
    for row in ranking.rows(contest, options.policies, seeds, options.jobs, options.threads):
        results.append(row)
        print(ranking.told(row), flush=True)
    results.sort(key=lambda row: (row["seed"], options.policies.index(row["policy"])))
    if options.clock:
        results = [ranking.clocked(contest, row, options.clock) for row in results]
    made = {"options": run.config, "command": command(options), "machine": machine(world)}
    record = {**made, **ranking.record(contest, results)}
    save_json(options.out / "benchmark.json", record)
    write_atomic(options.out / "leaderboard.md", tables.leaderboard(record).encode())
    tables.table(record["policies"]).show()
    print(tables.searched(record))
    print(
        f"wrote {options.out}/benchmark.json and leaderboard.md; `instanas report {options.out}` draws them"
    )
