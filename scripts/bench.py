"""Speed, as ratios on this machine in one run: medians of interleaved rounds, with their quartiles.

    instanas bench --out runs/bench.json          # several minutes; leave the machine alone
    instanas bench --quick                        # a minute's look, smaller batches

Times are of a space of width 1 at 32 px ("cifar") unless the row says "lite" or another. Weights are random:
they do not change the time.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
from rich.console import Console

from instanas_env.storage import save_json
from instanas_env.training.run_directory import machine
from scripts.bench_parts.around import children, environment, learning, twin
from scripts.bench_parts.memory import kept_memory, memory
from scripts.bench_parts.meta_graph import batch_sizes, evaluation, training
from scripts.bench_parts.one_file import one_file
from scripts.bench_parts.ratios import Figure, Options
from scripts.comparison.text_table import Columns, TextTable

PARTS = (
    evaluation,
    batch_sizes,
    training,
    kept_memory,
    environment,
    twin,
    learning,
    children,
    one_file,
    memory,
)
COLUMNS: Columns = {
    "figure": lambda figure: figure.name,
    "median": lambda figure: f"{figure.value:.3g}",
    "quartiles": lambda figure: f"{figure.low:.3g} to {figure.high:.3g}",
    "goal": lambda figure: figure.goal,
}


def main(options: Options) -> None:
    """Measure, print, write."""
    torch.set_num_threads(options.threads)
    figures: list[Figure] = []
    parts = {part.__name__: part for part in PARTS}
    for name in options.parts:
        with Console().status(parts[name].__doc__ or ""):
            figures += parts[name](options)
    TextTable.of(COLUMNS, figures).show()
    if options.out is not None:
        chosen = {name: getattr(options, name) for name in ("quick", "rounds", "threads", "parts")}
        record = {"options": chosen, "machine": machine(), "figures": [asdict(f) for f in figures]}
        save_json(options.out, record)
