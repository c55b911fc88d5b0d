"""What an experiment would run, and a guess how long it takes: sizes are counted, times measured in seconds.

A few real training steps of each kind run on embedded images, resized to the resolution of the search
space, on fresh weights. What a search ends with (few modules an image) is cheaper than what it starts
with, and what keeps the machine busy besides is left out: expect the truth within a factor of two.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from agents.controller import Controller
from instanas_env.build import parse_search_space
from instanas_env.counting import count_macs, count_parameters
from instanas_env.data import Augmentation, load_images
from instanas_env.drop_path import drop_path_masks
from instanas_env.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.training import predict_classes, sgd, train_epoch
from scripts import (
    benchmark,
    choose,
    evaluate,
    finetune,
    menu,
    pretrain,
    profile_latency,
    search,
    search_setup,
)
from scripts.presets import HERE, Preset
from scripts.stage import Stage

Kind = Literal["spread", "paper", "mobilenet_v2", "sparse", "distilled"]
"""Training with a drop-path schedule, of MobileNetV2 alone, under a controller, and that with a teacher."""
KEEP = 0.3
"""Share of an image's modules that are on once there is a controller; a MobileNetV2 path is 0.2."""
BATCH = 64
"""Images of a measured step at most; a larger one takes as much longer as it is larger."""
POLICIES = 20
"""That the comparison scores on the test split, about."""
CONTROLLERS = 8
"""Of them: those that have controls, about."""


class Stopwatch:
    """Seconds of each kind of work on this machine, for one image; each is measured when first asked for."""

    def __init__(self, space: SearchSpace):
        self.space = space
        self.images = load_images("embedded", "val", resolution=space.resolution).take(
            torch.arange(3 * BATCH)
        )
        self.generator = generator_for(0)
        self.meta_graph = MetaGraph(space, len(self.images.classes), self.generator)
        self._training: dict[tuple[Kind, int], float] = {}

    def training(self, kind: Kind, batch_size: int) -> float:
        """Of a training step with masks of a kind."""
        size = min(batch_size, BATCH)
        if (kind, size) not in self._training:
            teacher = self._mobilenet_v2() if kind == "distilled" else None
            graph, masks = self.meta_graph, self._sparse()
            if kind in ("spread", "paper"):  # drop-path, some way up its rising rate
                masks = drop_path_masks(self.space, len(self.images), 0.6, self.generator, kind)
            elif kind == "mobilenet_v2":
                graph = self._mobilenet_v2()
                masks = graph.space.full_mask().expand(len(self.images), -1, -1)
            steps = train_epoch(
                graph,
                self.images,
                lambda images, positions: masks[positions],
                sgd(graph, 1e-3, 0.9, 0.0),
                batch_size=size,
                generator=self.generator,
                augmentation=Augmentation(),
                teacher=None if teacher is None else teacher.eval().child(teacher.space.full_mask()),
            )
            self._training[kind, size] = fastest_step(steps) / size
        return self._training[kind, size]

    def _sparse(self) -> torch.Tensor:
        """Masks as a controller chooses them, about."""
        return self.space.random_masks(len(self.images), KEEP, self.generator)

    def _mobilenet_v2(self) -> MetaGraph:
        return MetaGraph(self.space.only(2), self.meta_graph.num_classes, self.generator)

    @cached_property
    def forward(self) -> float:
        """Of evaluation with sparse masks, in batches."""
        folded, start = self.meta_graph.eval().folded(), clock()
        predict_classes(folded, self.images, self._sparse(), BATCH)
        return (clock() - start) / len(self.images)

    @cached_property
    def alone(self) -> float:
        """Of all modules for one image at a time."""
        folded, start = self.meta_graph.eval().folded(), clock()
        few = self.images.take(torch.arange(3))
        predict_classes(folded, few, self.space.full_mask(), 1)
        return (clock() - start) / len(few)

    def acting(self, options: search.Options) -> float:
        """Of an agent's step: choose, score, learn."""
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "table.json"
            count_macs(self.space, len(self.images.classes)).save(table)
            size = min(options.num_envs, BATCH)
            own = replace(options, dataset="embedded", data_dir=None, latency_table=table)
            envs = search_setup.make_envs(replace(own, meta_graph=Path("random")), "val", size)
        agent = search_setup.make_agent(options, envs, 3 * size, None)
        return fastest_step(agent.train(3 * size)) / size

    # --- stages ----------------------------------------------------------------------------------

    def seconds(self, options: Any, preset: Preset) -> tuple[int, float]:
        """Steps and seconds of a stage with these options."""
        train, val, test = preset.images
        match options:
            case pretrain.Options():
                kind: Kind = "mobilenet_v2" if options.modules == (2,) else options.schedule
                per_epoch = train * self.training(kind, options.batch_size) + 3 * val * self.forward
                return options.epochs * -(-train // options.batch_size), options.epochs * per_epoch
            case finetune.Options():
                kind = "sparse" if options.teacher is None else "distilled"
                per_epoch = train * self.training(kind, options.batch_size) + val * self.forward
                return options.epochs * -(-train // options.batch_size), options.epochs * per_epoch
            case search.Options():
                update = (options.epochs - options.frozen_epochs) * self.training("sparse", BATCH)
                per_epoch = train * self.acting(options) + 2 * val * self.forward
                return options.epochs * -(
                    -train // options.num_envs
                ), options.epochs * per_epoch + train * update
            case profile_latency.Options():
                children = (options.calibration_children + options.children) * options.child_repetitions
                return options.repetitions, (options.repetitions + children / 2) * self.alone
            case menu.Options():
                return 0, 0.0  # one look at the validation images by the controller
            case benchmark.Options():
                masks = options.menu + options.one_shot_masks
                images = masks * min(options.one_shot_images, val) + 3 * len(options.dial) * (val + test)
                steps = -(-options.total_timesteps // options.num_envs)
                searched = search.Options(HERE, num_envs=options.num_envs)
                acted = options.total_timesteps * self.acting(searched)
                return options.seeds * steps, options.seeds * (images * self.forward + acted)
            case choose.Options():
                given: search.Options = getattr(preset, options.run.name.replace("-", "_"))
                looks = min(options.snapshots, given.epochs)
                looks *= options.dials if options.run.name == "regression" else 1
                return looks, looks * val * self.forward
            case evaluate.Options():
                networks = CONTROLLERS * options.control_networks
                images = options.one_shot_masks * val + POLICIES * test
                # Masks ranked as controls, the best again on all images; and those asked as the oracle.
                images += (options.control_masks + networks) * min(options.control_images, val)
                images += networks * (val + min(options.control_images, test))
                return options.one_shot_masks + POLICIES, images * self.forward
        return 0, 0.0


def clock() -> float:
    """Seconds that this process has computed: those in which the machine did other work do not count."""
    return time.process_time() / torch.get_num_threads()


def fastest_step(steps: Iterator[Any], count: int = 2) -> float:
    """Seconds of the fastest of ``count`` steps of an iterator that yields after each; the first warms up."""
    next(steps)
    seconds = []
    for _ in range(count):
        start = clock()
        next(steps)
        seconds.append(clock() - start)
    return min(seconds)


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
