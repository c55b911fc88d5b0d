"""Rank policies on the frozen meta-graph: train each over several seeds, compare on the test split.

    instanas benchmark --out runs/benchmark --dataset fashion_mnist --seeds 5
    instanas benchmark --out runs/mine --policies fixed reinforce ppo my_module:MyPolicy
    instanas benchmark --verify runs/benchmark/benchmark.json

A policy is a name (random, fixed, regression, reinforce, paper, shipped, ppo, a2c), a .safetensors file, a
.zip of Stable-Baselines3, or ``module:Class``: made as ``Class(envs, seed=0)``, trained by ``learn(steps)``
if it has that, and asked by ``predict(images, deterministic=True)``, which gives ``(actions, None)``. Resumes
after the last finished policy. Writes ``benchmark.json``, ``leaderboard.md``, and for each policy and seed
its figures and a replay, which ``--verify`` scores again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instanas_env.build import build_bandit
from instanas_env.storage import load_json, save_json, write_atomic
from instanas_env.training.run_directory import FREE, RunDirectory, machine
from scripts.begin import begin
from scripts.comparison import leaderboard
from scripts.comparison.contest import Budget, Contest
from scripts.comparison.ranking import LARGEST_DIFFERENCE, bounds, fingerprints, rows, summary, verify
from scripts.known import space_name


@dataclass(frozen=True)
class Options:
    """Which policies, on what, how long, how often."""

    out: Path = Path("runs/benchmark")
    """Directory of the run."""
    policies: tuple[str, ...] = ("random", "fixed", "regression", "reinforce")
    dataset: str = "embedded"
    """Data set, see instanas_env.data.load_images."""
    data_dir: Path | None = None
    """Where its files are."""
    meta_graph: Path | None = None
    """By default the shipped one; its file tells the search space."""
    latency_table: Path | None = None
    """By default the shipped one."""
    steps: int = 420_000
    """Answers that a policy learns from; regression asks the whole menu about each image."""
    masks: int = 300
    """Fixed masks that are ranked on all validation images, half of them mutations of the best."""
    menu: int = 53
    """So many of these regression chooses from; regret is against them."""
    gradient_steps: int = 40
    """Of regression, for every 256 images."""
    seeds: int = 5
    seed: int = 0
    """The first."""
    trust: bool = False
    """Load .zip files, which may run code of whoever wrote them."""
    device: str = "auto"
    """Where the networks compute: cpu, cuda, cuda:1; auto is CUDA where there is one, else the CPU."""
    threads: int = 1
    verify: Path | None = None
    """A benchmark.json whose replays are scored again; nothing else is done."""


def environment(options: Options) -> dict[str, Any]:
    """Keyword arguments of the environment; paths as strings, so that they are JSON."""
    given = {name: getattr(options, name) for name in ("dataset", "data_dir", "meta_graph", "latency_table")}
    given["search_space"] = space_name(options.meta_graph)
    return {name: str(value) for name, value in given.items() if value is not None}


def check(record: Path, device: str = "cpu") -> None:
    """Score the replays of a record again; ``ValueError`` if files changed, or too many answers did."""
    content = load_json(record)
    test = build_bandit(split="test", device=device, **content["environment"])
    now = fingerprints(test, content["environment"])
    changed = [name for name, value in now.items() if content["fingerprints"].get(name) != value]
    if changed:
        raise ValueError(f"verify: {record} was made with another {', '.join(changed)}")
    for row in content["rows"]:
        count, rewards, differ = verify(test, record.parent / row["replay"])
        told = f"{row['policy']} seed {row['seed']}: {len(differ)} of {count:,} answers differ"
        print(told + (f", of images {', '.join(map(str, differ[:20]))}" if differ else ""))
        if rewards:
            raise ValueError(f"verify: {rewards} rewards of {row['replay']} are not those of its answers")
        if len(differ) > LARGEST_DIFFERENCE * count:
            raise ValueError(f"verify: {told}; up to {LARGEST_DIFFERENCE:.1%} will do")
    print(f"verified {len(content['rows'])} replays")


def main(options: Options) -> None:
    """Make what is missing, print a line for each policy and seed, write."""
    world = begin(options)
    device = str(world.device)
    if options.verify is not None:
        check(options.verify, device)
        return
    free = (*FREE, "seeds", "policies", "trust", "verify")
    run = RunDirectory(options.out, options, free=free)
    budget = Budget(options.steps, options.masks, options.menu, options.gradient_steps)
    given = environment(options)
    contest = Contest(options.out, given, budget, options.seed, options.trust, device)
    run.bind(val=contest.val.image_set, test=contest.test.image_set)
    run.claim()
    results = []
    for row in rows(contest, options.policies, range(options.seed, options.seed + options.seeds)):
        results.append(row)
        test = row["test"]
        print(
            f"{row['policy']} seed {row['seed']}: reward {test['reward']:.3f}, {100 * test['accuracy']:.1f} %"
            f" right in {test['latency_ms']:.3f} ms, {test['networks']} networks",
            flush=True,
        )
    limits = bounds(contest)
    ranked = summary(results, limits)
    record = {"options": run.config, "environment": given, "machine": machine(world)}
    prints = fingerprints(contest.test, given)
    save_json(
        options.out / "benchmark.json",
        {**record, "fingerprints": prints, "bounds": limits, "ranked": ranked, "rows": results},
    )
    command = f"instanas benchmark --policies {' '.join(options.policies)} --seeds {options.seeds}"
    command += f" --steps {options.steps} --dataset {options.dataset}"
    write_atomic(options.out / "leaderboard.md", leaderboard.markdown(ranked, limits, command).encode())
    leaderboard.show(ranked)
    print(f"wrote {options.out}/benchmark.json and leaderboard.md")
