"""What an experiment would run, and how long that might take: sizes are counted, times guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from agents.controller import Controller
from instanas_env.build import parse_search_space
from instanas_env.networks.counting import count_macs, count_parameters
from scripts.experiment.presets import Preset
from scripts.experiment.stage import Stage
from scripts.experiment.stopwatch import Stopwatch


def sizes(name: str, classes: int) -> Table:
    """Parameters and multiply-accumulates of the networks of a search space."""
    space = parse_search_space(name)
    table = Table("network", "parameters", "MACs an image", title=name)
    for network, part in (("meta-graph, all modules", space), ("MobileNetV2 alone", space.only(2))):
        full = part.full_mask()
        parameters, macs = (
            count(part, classes).lookup(full).item() for count in (count_parameters, count_macs)
        )
        table.add_row(network, f"{parameters:,.0f}", f"{macs:,.1f} M")
    controller = sum(weight.numel() for weight in Controller(space).parameters())
    table.add_row("controller", f"{controller:,}", "")
    return table


def told(options: Any) -> str:
    """Options that are not their script's default, but for paths."""

    def is_path(value: Any) -> bool:
        return isinstance(value, Path) or isinstance(value, tuple) and any(map(is_path, value))

    values = {entry.name: getattr(options, entry.name) for entry in fields(options)}
    defaults = {entry.name: entry.default for entry in fields(options) if entry.default is not MISSING}
    return ", ".join(
        f"{name} {value}"
        for name, value in values.items()
        if name in defaults and value != defaults[name] and not is_path(value)
    )


def duration(seconds: float) -> str:
    """90 as "1.5 min", 7200 as "2.0 h"."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def elapsed(seconds: Sequence[float], workers: int) -> float:
    """Of stages that run so many at a time, about: the longest one may hold the others up."""
    return max(sum(seconds) / workers, *seconds, 0.0)


def show(preset: Preset, groups: Sequence[Sequence[Stage]], threads: int, workers: int) -> float:
    """Print sizes, and each stage with its options, steps and estimated time.

    Args:
        preset: of the experiment.
        groups: its stages, together with those that can run beside each other.
        threads: of a stage.
        workers: stages that run at a time.

    Returns:
        The estimated seconds of all.
    """
    torch.set_num_threads(threads)
    console, space = Console(width=110), parse_search_space(preset.search_space)
    console.print(sizes(preset.search_space, preset.classes))
    train, val, test = preset.images
    console.print(f"{train:,} training, {val:,} validation and {test:,} test images (as the preset has it)")
    watch, total = Stopwatch(space), 0.0
    table = Table("stage", "steps", "about", "options besides the scripts' defaults")
    for group in groups:
        seconds = []
        for stage in group:
            steps, expected = watch.seconds(stage.options, preset)
            seconds.append(expected)
            table.add_row(stage.label, f"{steps:,}", duration(expected), told(stage.options))
        total += elapsed(seconds, workers)
    console.print(table)
    at_a_time = f", {workers} stages at a time" if workers > 1 else ""
    plural = "s" if threads > 1 else ""
    console.print(f"about {duration(total)} in all, with {threads} thread{plural} a stage{at_a_time}")
    return total
