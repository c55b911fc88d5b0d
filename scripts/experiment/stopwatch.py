"""How long the stages of an experiment take on this machine: a few real steps of each kind, timed.

They run on embedded images, resized to the resolution of the search space, on fresh weights. What a search
ends with (few modules an image) is cheaper than what it starts with, and what keeps the machine busy besides
is left out: expect the truth within a factor of two.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from instanas_env.data import Augmentation, load_images
from instanas_env.networks.counting import count_macs
from instanas_env.networks.drop_path import drop_path_masks
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.training.epoch import predict_classes, sgd, train_epoch
from scripts import baseline, choose, evaluate, finetune, pretrain, profile, search_options, search_setup
from scripts.comparison.names import SEED
from scripts.comparison.torchvision_networks import Architecture, TorchvisionNetwork
from scripts.experiment.presets import Preset

Kind = Literal["spread", "paper", "sandwich", "mobilenet_v2", "sparse", "chosen", "distilled"]
"""Training with a drop-path schedule, of MobileNetV2, in a search, after it, and that with a teacher."""
KEEP = 0.3
"""Share of an image's modules that are on in a search; a MobileNetV2 path is 0.2."""
CHOSEN_KEEP, CHOSEN_NETWORKS = 0.12, 24
"""The same after it, and how many networks there are then, about."""
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
            if kind in ("spread", "paper", "sandwich"):  # drop-path, some way up its rising rate
                masks = drop_path_masks(self.space, len(self.images), 0.6, self.generator, kind)
            elif kind in ("chosen", "distilled"):
                few = self.space.random_masks(CHOSEN_NETWORKS, CHOSEN_KEEP, self.generator)
                masks = few[torch.arange(len(self.images)) % len(few)]
            elif kind == "mobilenet_v2":
                graph = self._mobilenet_v2()
                masks = graph.space.full_mask().expand(len(self.images), -1, -1)
            self._training[kind, size] = self._step(graph, masks, size, teacher)
        return self._training[kind, size]

    def _step(
        self,
        network: nn.Module,
        masks: torch.Tensor,
        size: int,
        teacher: MetaGraph | None = None,
    ) -> float:
        steps = train_epoch(
            network,
            self.images,
            lambda images, positions: masks[positions],
            sgd(network, 1e-3, 0.9, 0.0),
            batch_size=size,
            generator=self.generator,
            augmentation=Augmentation(),
            teacher=None if teacher is None else teacher.eval().child(teacher.space.full_mask()),
        )
        return fastest_step(steps) / size

    def baseline(self, options: baseline.Options) -> float:
        """Of a training step of a network of torchvision."""
        shape = Architecture(options.network, options.width, options.stem_stride, options.resolution)
        network = TorchvisionNetwork(shape, self.meta_graph.num_classes)
        return self._step(network, self._sparse(), min(options.batch_size, BATCH))

    def _sparse(self) -> torch.Tensor:
        """Masks as they are tried in a search, about."""
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

    def acting(self, options: search_options.Options) -> float:
        """Of an agent's step: choose, score, learn."""
        with tempfile.TemporaryDirectory() as folder:
            table, weights = Path(folder) / "table.json", Path(folder) / "weights.safetensors"
            self.meta_graph.save(weights)
            count_macs(self.space, len(self.images.classes)).save(table)
            size = min(options.num_envs, BATCH)
            own = replace(options, dataset="embedded", data_dir=None, latency_table=table)
            envs = search_setup.make_envs(replace(own, meta_graph=weights), "val", size)
        agent = search_options.make_agent(options, envs, 3 * size)
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
            case baseline.Options():
                per_epoch = train * self.baseline(options) + val * self.forward
                return options.epochs * -(-train // options.batch_size), options.epochs * per_epoch
            case finetune.Options():
                kind = "chosen" if options.teacher is None else "distilled"
                per_epoch = train * self.training(kind, options.batch_size) + val * self.forward
                return options.epochs * -(-train // options.batch_size), options.epochs * per_epoch
            case search_options.Options():
                update = (options.epochs - options.frozen_epochs) * self.training("sparse", BATCH)
                per_epoch = train * self.acting(options) + 2 * val * self.forward
                return options.epochs * -(
                    -train // options.num_envs
                ), options.epochs * per_epoch + train * update
            case profile.Options():
                timed = (options.fitted + options.children) * options.repetitions
                return options.repetitions, timed / 2 * self.alone  # of half of the modules each
            case choose.Options():
                agent = SEED.sub("", options.run.name)
                given: search_options.Options = getattr(preset, agent.replace("-", "_"))
                looks = min(options.snapshots, given.epochs)
                looks *= options.dials if agent == "regression" else 1
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
