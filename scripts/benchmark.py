"""Rank policies on the frozen meta-graph: train each over several seeds, compare on the test split.

    instanas benchmark --out runs/benchmark --dataset fashion_mnist --seeds 5 --jobs 2
    instanas benchmark --out runs/mine --policies fixed reinforce ppo my_module:MyPolicy
    instanas benchmark --out runs/twin --env InstaNASTabular-v1 --policies random fixed linucb dqn
    instanas benchmark --verify runs/benchmark/benchmark.json

A policy is a name (random, fixed, regression, reinforce, paper, shipped, linucb, convnet-aig, blockdrop; of
Stable-Baselines3: ppo, a2c, trpo, dqn), a .safetensors file, a .zip of Stable-Baselines3, or
``module:Class``: made as ``Class(envs, seed=0)``, trained by ``learn(steps)`` if it has that, and asked by
``predict(images, deterministic=True)``, which gives ``(actions, None)``. Resumes after the last finished
ones. Writes ``benchmark.json``, ``leaderboard.md``, and for each policy and seed its figures and a replay,
which ``--verify`` scores again; `instanas report` draws the frontier and the learning curves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from instanas_env.storage import load_json, save_json, write_atomic
from instanas_env.training.run_directory import FREE, RunDirectory, machine
from scripts.begin import begin
from scripts.comparison import leaderboard, policies, ranking
from scripts.comparison.contest import TWIN, Budget, Contest
from scripts.comparison.replays import Replay, fingerprints
from scripts.known import space_name

FIGURE_ROUNDING = 1e-6
"""Of a mean of float32 rewards."""


@dataclass(frozen=True)
class Options:
    """Which policies, on what, how long, how often."""

    out: Path = Path("runs/benchmark")
    """Directory of the run."""
    policies: tuple[str, ...] = ("random", "fixed", "regression", "reinforce")
    env: Literal["InstaNAS-v1", "InstaNASTabular-v1"] = "InstaNAS-v1"
    """The second takes the policies that choose from K masks: random, fixed, linucb, ppo, a2c, trpo, dqn, and
    models and classes that do."""
    dataset: str = "embedded"
    """Data set, see instanas_env.data.load_images; the twin's is that of its table."""
    data_dir: Path | None = None
    """Where its files are."""
    meta_graph: Path | None = None
    """By default the shipped one; its file tells the search space."""
    latency_table: Path | None = None
    """By default the shipped one."""
    table: Path | None = None
    """Of the twin, from `instanas tabulate`; by default the shipped one."""
    steps: int = 420_000
    """Answers (an image under a mask) that a policy learns from."""
    masks: int = 300
    """Fixed masks that are ranked on all validation images, half of them mutations of the best."""
    menu: int = 53
    """So many of these regression, DQN and LinUCB choose from; regret is against them."""
    gradient_steps: int = 40
    """Of regression, for every 256 images."""
    seeds: int = 5
    seed: int = 0
    """The first."""
    trust: bool = False
    """Load .zip files, which may run code of whoever wrote them."""
    clock: int = 0
    """Time the ONNX file of each of our policies on so many test images; best on a quiet machine."""
    jobs: int = 1
    """Processes at a time, each for a policy and a seed; the results are the same."""
    device: str = "auto"
    """Where the networks compute: cpu, cuda, cuda:1; auto is CUDA where there is one, else the CPU."""
    threads: int = 1
    """Of PyTorch, in each process."""
    verify: Path | None = None
    """A benchmark.json whose replays are scored again; nothing else is done."""


FILES = ("data_dir", "meta_graph", "latency_table", "table")
"""Of the environment's arguments those that may lie elsewhere on another machine."""


def environment(options: Options) -> dict[str, Any]:
    """Keyword arguments of the environment; paths as strings, so that they are JSON."""
    twin = options.env == TWIN
    names = ("table", "data_dir") if twin else ("dataset", "data_dir", "meta_graph", "latency_table")
    given = {name: getattr(options, name) for name in names}
    if not twin:
        given["search_space"] = space_name(options.meta_graph)
    return {name: str(value) for name, value in given.items() if value is not None}


def check(options: Options, device: str = "cpu") -> None:
    """Score the replays beside a record again, and compare its rows with them.

    Files lie where the record has them, or where the options say. ``ValueError`` if they changed, if too many
    answers differ, or if a figure is not that of its replay.
    """
    file = options.verify
    assert file is not None
    record = load_json(file)
    elsewhere = environment(replace(options, env=record["env"]))
    files = {name: elsewhere[name] for name in FILES if name in elsewhere}
    given, budget = {**record["environment"], **files}, Budget(**record["budget"])
    contest = Contest(file.parent, given, budget, env=record["env"], device=device)
    now = fingerprints(contest.test, contest.environment, contest.twin)
    found = [row for row in record["rows"] if (file.parent / row["replay"]).is_file()]
    if not found:
        raise ValueError(f"verify: {file} has no replays beside it")
    for row in found:
        replay = Replay.load(file.parent / row["replay"], contest.space.num_bits)
        for prints in (record["fingerprints"], replay.about["fingerprints"]):
            if changed := [name for name, value in now.items() if prints.get(name) != value]:
                raise ValueError(f"verify: {file} was made with another {', '.join(changed)}")
        differ, exact = replay.verify(contest.test)
        if (replay.about["policy"], replay.about["seed"]) != (row["policy"], row["seed"]):
            raise ValueError(f"verify: {row['replay']} is of {replay.about['policy']}, not {row['policy']}")
        for name, mean in (("accuracy", replay.correct.mean()), ("reward", replay.reward.mean(dtype=float))):
            if abs(row["test"][name] - mean) > FIGURE_ROUNDING:
                raise ValueError(
                    f"verify: the {name} of {row['policy']} is not {mean:.6f}, that of its replay"
                )
        how = f"{len(differ)} answers differ by rounding" if differ else "rewards differ by rounding"
        how = "to the bit" if exact else how
        named = f", of images {', '.join(map(str, differ[:20]))}" if differ else ""
        print(f"{row['policy']} seed {row['seed']}: {len(replay.network):,} images, {how}{named}")
    without = len(record["rows"]) - len(found)
    print(f"verified {len(found)} replays" + (f"; {without} rows have none here" if without else ""))


def command(options: Options) -> str:
    """What to type for the same leaderboard."""
    told = f"instanas benchmark --policies {' '.join(options.policies)} --seeds {options.seeds}"
    told += f" --steps {options.steps}"
    return told + (f" --env {TWIN}" if options.env == TWIN else f" --dataset {options.dataset}")


def main(options: Options) -> None:
    """Make what is missing, print a line for each policy and seed, write."""
    world = begin(options)
    device = str(world.device)
    if options.verify is not None:
        check(options, device)
        return
    run = RunDirectory(
        options.out, options, free=(*FREE, "seeds", "policies", "trust", "clock", "jobs", "verify")
    )
    budget = Budget(options.steps, options.masks, options.menu, options.gradient_steps)
    given = environment(options)
    contest = Contest(
        options.out, given, budget, options.seed, options.trust, options.env, progress=True, device=device
    )
    for name in options.policies:
        policies.check(contest, name)
    run.bind(val=contest.val.image_set, test=contest.test.image_set)
    run.claim()
    seeds = range(options.seed, options.seed + options.seeds)
    results = []
    for row in ranking.rows(contest, options.policies, seeds, options.jobs, options.threads):
        results.append(row)
        test = row["test"]
        print(
            f"{row['policy']} seed {row['seed']}: reward {test['reward']:.3f}, {100 * test['accuracy']:.1f} %"
            f" right in {test['latency_ms']:.3f} ms, {test['networks']} networks",
            flush=True,
        )
    order = {name: place for place, name in enumerate(options.policies)}
    results.sort(key=lambda row: (row["seed"], order[row["policy"]]))
    if options.clock:
        results = [ranking.clocked(contest, row, options.clock) for row in results]
    limits = ranking.bounds(contest)
    ranked = ranking.summary(contest, results, limits)
    slowest = contest.test.cost_table.reference("full")
    record = {
        "env": options.env,
        "options": run.config,
        "environment": contest.environment,
        "budget": vars(budget),
        "command": command(options),
        "machine": machine(world),
        "fingerprints": fingerprints(contest.test, contest.environment, contest.twin),
        "search": {name: contest.fixed[name] for name in ("answers", "seconds")},
        "bounds": limits,
        "hypervolume": ranking.together(ranked, slowest),
        "reference_point": {"accuracy": 0.0, "latency_ms": slowest},
        "ranked": ranked,
        "rows": results,
    }
    save_json(options.out / "benchmark.json", record)
    write_atomic(options.out / "leaderboard.md", leaderboard.markdown(record).encode())
    leaderboard.table(ranked).show()
    print(leaderboard.searched(record))
    print(
        f"wrote {options.out}/benchmark.json and leaderboard.md; `instanas report {options.out}` draws them"
    )
