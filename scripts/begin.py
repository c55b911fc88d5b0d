"""How every verb that computes begins: its numbers are checked, its device is said, its images are loaded.

What the package says while it works (which images it read) is shown on the terminal as well, a line each.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from instanas_env.bandit import InstanceBandit
from instanas_env.build import parse_device
from instanas_env.data import ImageSet, load_images
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.training.allocator import keep_freed_memory
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.matching import check_classes, check_spaces
from instanas_env.training.run_directory import RunDirectory, machine
from scripts.options import check_options


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


def begin(options: Any, world: World = ALONE) -> World:
    """Set threads and device, and print them; memory that is freed stays with the process.

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
    keep_freed_memory()
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


def images_to_train(options: Any, resolution: int, run: RunDirectory) -> tuple[ImageSet, ImageSet]:
    """The training and the validation images of the options, to which the run is tied from now on."""
    with run.world.one_first():
        train, val = (
            load_images(options.dataset, split, options.data_dir, resolution) for split in ("train", "val")
        )
    run.bind(train=train, val=val)
    return train, val


def frozen_bandits(
    options: Any, splits: Sequence[str], device: torch.device, runs: Iterable[Path] = ()
) -> list[InstanceBandit]:
    """The meta-graph and the table of the options on some splits, seen to belong together.

    Args:
        options: with data and weights.
        splits: such as "val" and "test".
        device: where the meta-graph computes; all bandits share it.
        runs: directories with a controller and a meta-graph that must fit as well.
    """
    runs = list(runs)
    space, table = check_spaces(options.weights_file, options.table_file, runs)
    image_sets = [load_images(options.dataset, each, options.data_dir, space.resolution) for each in splits]
    check_classes(options.weights_file, runs, len(image_sets[0].classes))
    meta_graph = MetaGraph.load(options.weights_file).to(device)
    return [InstanceBandit(meta_graph, images, table) for images in image_sets]
