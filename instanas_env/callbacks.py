"""Interleaved training (section 3.3), inside the environment, between an agent's steps.

The agent sees the standard API only; so every agent gets interleaved training without a line of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from instanas_env import checks, paper
from instanas_env.bandit import InstanceBandit, Outcome
from instanas_env.data import LIGHT, Augmentation
from instanas_env.hooks import BanditEnv, EnvCallback
from instanas_env.seeding import generator_for
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.epoch import Teacher, sgd, train_epoch


@dataclass
class MetaGraphUpdate(EnvCallback):
    """Interleaved training (section 3.3): one meta-graph epoch after each epoch of the agent.

    The (image, mask) pairs of an epoch are recorded; at its end the meta-graph trains for one pass on
    the same images. With ``shuffle`` (the paper's policy random shuffling) the masks are exchanged
    within each batch, so that no child network becomes an expert for its images.

    An epoch of training happens whole or not at all: where it fails or is interrupted, weights, BatchNorm's
    statistics, optimizer and mode are put back, the record is kept, and the environment tries again before
    its next step.

    One that has trained a meta-graph and comes to another trains that with a new optimizer.

    Attributes:
        learning_rate: of SGD with Nesterov momentum, at the first epoch.
        final_learning_rate: at the last epoch; in between it falls linearly.
        epochs: the length of the search.
        frozen_epochs: so many first epochs leave the meta-graph as it is.
        batch_size, momentum, weight_decay: of SGD.
        shuffle: True, False, or the number of first epochs with shuffling.
        augmentation: of the training images.
        teacher: gives logits to imitate, as in :func:`train_epoch`; None trains on the labels alone.
        seed: of the order, the exchanges and the augmentation.
        world: the processes that share every batch, each with its shard of the environment.
        history: one row per meta-graph epoch: epoch, loss, accuracy on the training images, learning rate,
            and whether masks were shuffled.
    """

    trains = True

    learning_rate: float = 0.02
    final_learning_rate: float = 0.002
    epochs: int = 10
    frozen_epochs: int = 0
    batch_size: int = 128
    momentum: float = paper.MOMENTUM
    weight_decay: float = paper.WEIGHT_DECAY
    shuffle: bool | int = True
    augmentation: Augmentation | None = LIGHT
    teacher: Teacher | None = None
    seed: int = 0
    world: World = ALONE
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        checks.instance("world", self.world, World)
        checks.instance("history", self.history, list)
        self.learning_rate = checks.number("learning_rate", self.learning_rate, 0)
        self.final_learning_rate = checks.number("final_learning_rate", self.final_learning_rate, 0)
        self.epochs = checks.whole("epochs", self.epochs, 1)
        self.frozen_epochs = checks.whole("frozen_epochs", self.frozen_epochs)
        self.batch_size = checks.whole("batch_size", self.batch_size, max(2, self.world.size))
        self.momentum = checks.number("momentum", self.momentum, 0, 1)
        self.weight_decay = checks.number("weight_decay", self.weight_decay, 0)
        if not isinstance(self.shuffle, bool):
            self.shuffle = checks.whole("shuffle", self.shuffle)
        if self.teacher is not None and not callable(self.teacher):
            raise checks.refuse("teacher", self.teacher, "a function of images, or None,")
        if self.augmentation is not None and not isinstance(self.augmentation, Augmentation):
            raise checks.refuse("augmentation", self.augmentation, "an Augmentation, or None,")
        self.seed = checks.whole("seed", self.seed)
        self._indices: list[Tensor] = []
        self._masks: list[Tensor] = []
        self._meta_graph: nn.Module | None = None  # whose the next two are
        self._optimizer: torch.optim.SGD | None = None
        self._replica: nn.Module | None = None

    def on_restart(self, env: BanditEnv) -> None:
        """Forget the pass that was broken off. The weights stay as they are."""
        self._indices, self._masks = [], []

    def on_step(self, outcome: Outcome) -> None:
        """Record the images and their masks."""
        index = self.world.gather(torch.from_numpy(outcome.index))
        masks = self.world.gather(torch.from_numpy(outcome.mask))
        self._indices.append(index)  # both or none, should gathering fail
        self._masks.append(masks)

    def on_epoch_end(self, env: BanditEnv) -> None:
        """Train on the record and let the environment take over the weights."""
        bandit = env.bandit
        if bandit.epoch >= self.frozen_epochs:
            index, masks = torch.cat(self._indices), torch.cat(self._masks)
            self._turn_to(bandit.meta_graph)
            with self._whole_or_not_at_all(bandit.meta_graph):
                row = self._train(bandit, index, masks)
                bandit.meta_graph.eval()
                bandit.refresh()
            self.history.append(row)
        self._indices, self._masks = [], []

    def _turn_to(self, meta_graph: nn.Module) -> None:
        """Begin with a new optimizer and replica where another meta-graph is to be trained than before."""
        if self._meta_graph is not meta_graph:
            self._meta_graph, self._optimizer, self._replica = meta_graph, None, None

    @contextmanager
    def _whole_or_not_at_all(self, meta_graph: nn.Module) -> Iterator[None]:
        """Put meta-graph and optimizer back as they were if what is done within raises."""
        weights = copy.deepcopy(meta_graph.state_dict())
        modes = [(module, module.training) for module in meta_graph.modules()]
        optimizer = None if self._optimizer is None else copy.deepcopy(self._optimizer.state_dict())
        try:
            yield
        except BaseException:  # an interrupt too
            meta_graph.load_state_dict(weights)
            for module, training in modes:
                module.training = training
            if optimizer is None:
                self._optimizer = None
            elif self._optimizer is not None:
                self._optimizer.load_state_dict(optimizer)
            raise

    def _train(self, bandit: InstanceBandit, index: Tensor, masks: Tensor) -> dict[str, float]:
        epoch = bandit.epoch
        generator = generator_for(self.seed, 3, epoch)
        shuffle = self.shuffle if isinstance(self.shuffle, bool) else epoch < self.shuffle
        progress = (epoch - self.frozen_epochs) / max(1, self.epochs - self.frozen_epochs - 1)
        fall = self.learning_rate - self.final_learning_rate
        learning_rate = self.learning_rate - fall * min(1.0, progress)
        if self._optimizer is None:
            self._optimizer = sgd(bandit.meta_graph, learning_rate, self.momentum, self.weight_decay)

        if self._replica is None:
            self._replica = self.world.replicate(bandit.meta_graph)

        def masks_for(images: Tensor, positions: Tensor) -> Tensor:
            chosen = masks[positions]
            return shuffle_policies(chosen, generator) if shuffle else chosen

        batches = list(
            train_epoch(
                self._replica,
                bandit.image_set,
                masks_for,
                self._optimizer,
                batch_size=self.batch_size,
                generator=generator,
                learning_rate_at=lambda step: learning_rate,
                augmentation=self.augmentation,
                index=index,
                teacher=self.teacher,
                world=self.world,
            )
        )
        total = max(1, sum(batch.count for batch in batches))
        return {
            "epoch": epoch + 1,
            "loss": sum(batch.loss * batch.count for batch in batches) / total,
            "accuracy": sum(batch.accuracy * batch.count for batch in batches) / total,
            "learning_rate": learning_rate,
            "shuffled": float(shuffle),
        }

    def state_dict(self) -> dict[str, Any]:
        """At an epoch's end: optimizer and history. Weights are the meta-graph's own."""
        optimizer = None if self._optimizer is None else self._optimizer.state_dict()
        return {"optimizer": optimizer, "history": list(self.history)}

    def load_state_dict(self, state: dict[str, Any], bandit: InstanceBandit) -> None:
        """Go on where another callback of the same make stood; what was recorded since is dropped."""
        self.history = list(state["history"])
        self._indices, self._masks = [], []
        self._turn_to(bandit.meta_graph)
        self._optimizer = None
        if state["optimizer"] is not None:
            self._optimizer = sgd(bandit.meta_graph, self.learning_rate, self.momentum, self.weight_decay)
            self._optimizer.load_state_dict(state["optimizer"])


def shuffle_policies(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Policy random shuffling (section 3.3): the same masks ``(B, cells, modules)``, other images."""
    return masks[torch.randperm(len(masks), generator=generator)]
