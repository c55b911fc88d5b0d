"""What an experiment would run: the sizes of its networks, its stages and their steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from agents.controller import Controller
from instanas_env.build import parse_search_space
from instanas_env.networks.counting import count_macs, count_parameters
from scripts.experiment.presets import Preset
from scripts.experiment.stage import Stage


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


def told(options: Any, usual: Any = None) -> str:
    """Options that are not their command's default, but for paths; those of parts, such as an agent's, too.

    ``usual`` are those of the same class to compare with, where they are not its defaults.
    """

    def is_path(value: Any) -> bool:
        return isinstance(value, Path) or isinstance(value, tuple) and any(map(is_path, value))

    def default(entry: Field[Any]) -> Any:
        if usual is not None:
            return getattr(usual, entry.name)
        return entry.default if entry.default_factory is MISSING else entry.default_factory()

    words = []
    for entry in fields(options):
        value, standard = getattr(options, entry.name), default(entry)
        if is_dataclass(value):
            words.append(told(value, standard if type(standard) is type(value) else None))
        elif standard is not MISSING and value != standard and not is_path(value):
            words.append(f"{entry.name} {value}")
    return ", ".join(filter(None, words))


def steps(options: Any, train: int) -> str:
    """How many steps a stage takes that trains on ``train`` images a pass; nothing for the others."""
    size = getattr(options, "batch_size", getattr(options, "num_envs", None))
    return "" if size is None else f"{options.epochs * -(-train // size):,}"


def show(preset: Preset, stages: Iterable[Stage]) -> None:
    """Print the sizes of the networks, and each stage with its steps and options."""
    console = Console(width=120)
    console.print(sizes(preset.search_space, preset.classes))
    train, val, test = preset.images
    console.print(f"{train:,} training, {val:,} validation and {test:,} test images (as the preset has it)")
    table = Table("stage", "steps", "options besides the commands' defaults")
    for stage in stages:
        table.add_row(stage.label, steps(stage.options, train), told(stage.options))
    console.print(table)
