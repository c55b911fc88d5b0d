"""How every verb that computes begins: its numbers are checked, and its first line says what it computes on.

What the package says while it works (which images it read) is shown on the terminal as well, a line each.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import fields, is_dataclass
from typing import Any

import torch

from instanas_env import checks
from instanas_env.build import parse_device
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.run_directory import machine

LEAST = {name: 0 for name in ("seed", "modules", "children", "control_masks", "frozen_epochs")}
LEAST |= {"curriculum_epochs": 0, "random_epochs": 0, "clock": 0, "classes": 0, "images": 0, "batch_size": 2}
"""Whole numbers among the options are at least 1, but for these."""
MOST = {"threads": 1024}
SIGNED = ("wrong_reward", "entropy_coefficient")
"""Other numbers are not negative, but for these."""


class _Terminal(logging.Handler):
    """Prints to standard error as it is now: it may be redirected after the handler was made."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)


def show_log(here: bool = True) -> None:
    """Show the messages of the logger "instanas_env" from now on, each once however often this is called.

    Args:
        here: whether this process is the one that talks; the others stay silent.
    """
    logger = logging.getLogger("instanas_env")
    if here and not any(isinstance(handler, _Terminal) for handler in logger.handlers):
        logger.addHandler(_Terminal())
        logger.setLevel(logging.INFO)


def check_options(options: Any) -> None:
    """``ValueError`` names an option whose number cannot be meant: epochs of -1, a learning rate of NaN."""
    for entry in fields(options):
        value, name = getattr(options, entry.name), entry.name
        for part in value if isinstance(value, tuple) else (value,):
            if is_dataclass(part):
                check_options(part)
            elif isinstance(part, int) and not isinstance(part, bool):
                checks.whole(name, part, LEAST.get(name, 1), MOST.get(name))
            elif isinstance(part, float):
                checks.number(name, part, -checks.LARGEST if name in SIGNED else 0)


def begin(options: Any, world: World = ALONE) -> World:
    """Set threads and device, and print them.

    Args:
        options: of the verb, with ``threads`` and ``device``.
        world: of the call; under torchrun its device counts, whatever the options say.

    Returns:
        The world, on the device that is to compute.

    Raises:
        ValueError: a number out of range, or a device that is not there.
    """
    check_options(options)
    place = parse_device(options.device)
    torch.set_num_threads(options.threads)
    show_log(world.is_main)
    world = world.on(place)
    if world.is_main:
        print(told(world), flush=True)
    return world


def told(world: World) -> str:
    """The first line of a run: device, threads and processor."""
    found = machine(world)
    threads = f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}"
    processes = f", {world.size} processes" if world.size > 1 else ""
    return f"device {found['device']}, {threads}{processes}, {found['processor']}"
