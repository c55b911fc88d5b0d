"""The loop that pre-training and fine-tuning share: warm-up, cosine, a checkpoint after every epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import track
from torch import Tensor, nn

from instanas_env import checks, paper
from instanas_env.data import Augmentation, ImageSet
from instanas_env.seeding import generator_for
from instanas_env.training.distributed import World
from instanas_env.training.epoch import Teacher, sgd, train_epoch, warmup_cosine
from instanas_env.training.matching import META_GRAPH
from instanas_env.training.run_directory import RunDirectory, machine

EpochMasks = Callable[[Tensor, int, float, torch.Generator], Tensor]
"""This process's images of a batch, uint8 ``(n, 3, H, W)``, how many there are in all (B), progress in [0, 1)
and a generator, to the masks of the whole batch ``(B, cells, modules)``."""


Optimizer = Literal["sgd", "adam"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs, batch_size: how long, and how many images a step.
        learning_rate: the peak, after ``warmup_epochs``; then cosine to 0.
        weight_decay: of all parameters.
        augmentation: of the images.
        seed: of order, augmentation and masks.
        optimizer: SGD with Nesterov momentum, or Adam.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    augmentation: Augmentation
    weight_decay: float = paper.WEIGHT_DECAY
    seed: int = 0
    warmup_epochs: int = 1
    optimizer: Optimizer = "sgd"

    @classmethod
    def of(cls, options: Any, **others: Any) -> Recipe:
        """The recipe that a command's options describe, with ``others`` set as given."""
        names = ("epochs", "batch_size", "learning_rate", "weight_decay", "augmentation", "seed")
        return cls(**{name: getattr(options, name) for name in names}, **others)

    def optimizer_of(self, network: nn.Module) -> torch.optim.Optimizer:
        """A new optimizer of its parameters."""
        if self.optimizer == "sgd":
            return sgd(network, self.learning_rate, paper.MOMENTUM, self.weight_decay)
        return torch.optim.Adam(network.parameters(), self.learning_rate, weight_decay=self.weight_decay)


def fit(
    meta_graph: nn.Module,
    train: ImageSet,
    masks_for: EpochMasks,
    evaluate: Callable[[], dict[str, float]],
    save: Callable[[Path, dict[str, Any]], None],
    run: RunDirectory,
    recipe: Recipe,
    teacher: Teacher | None = None,
    file: str = META_GRAPH,
) -> None:
    """Train ``meta_graph`` in place to the last epoch, from the checkpoint of ``run`` if it has one.

    Every epoch draws from a generator of its own, so a resumed run ends with the weights of an unbroken
    one. Writes ``file`` at the end.

    Args:
        meta_graph: trained in place.
        train: the images.
        masks_for: gives the masks of a batch.
        evaluate: validation figures after an epoch.
        save: writes the weights with their record, such as :meth:`MetaGraph.save`.
        run: keeps history and checkpoint; the processes of its world share every batch.
        recipe: how to train.
        teacher: gives logits to imitate.
        file: name of the weights in the run's directory.
    """
    world = run.world
    checks.whole("epochs", recipe.epochs, 1)
    checks.whole("batch_size", recipe.batch_size, max(2, world.size))
    if len(train) < max(2, world.size):
        raise ValueError(f"data_dir: got {len(train)} training image(s); {max(2, world.size)} will do")
    if meta_graph.num_classes != len(train.classes):
        raise ValueError(
            f"meta_graph: has {meta_graph.num_classes} classes; the data set has {len(train.classes)}"
        )
    replica, optimizer = world.replicate(meta_graph.to(world.device)), recipe.optimizer_of(meta_graph)
    state = run.restore()
    if state is not None:
        meta_graph.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    run.claim()
    finished = len(run.history) >= recipe.epochs and (run.path / file).is_file()
    for epoch in range(len(run.history), recipe.epochs):
        start = time.perf_counter()
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            **_train_epoch(replica, train, masks_for, optimizer, recipe, epoch, teacher, world),
            "val": evaluate(),
            "seconds": round(time.perf_counter() - start, 1),
        }
        figures = {"loss": row["loss"], **row["val"]}
        if world.is_main:
            print("  ".join(f"{name} {value:.4f}" for name, value in figures.items()), flush=True)
        run.checkpoint(row, {"model": meta_graph.state_dict(), "optimizer": optimizer.state_dict()})
    if world.is_main and not finished:  # later runs are tied to the bytes
        record = {"options": run.config, "machine": machine(world), "history": run.history[-1:]}
        save(run.path / file, record)
        print(f"wrote {run.path / file}")


def _train_epoch(
    replica: nn.Module,
    train: ImageSet,
    masks_for: EpochMasks,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    epoch: int,
    teacher: Teacher | None,
    world: World,
) -> dict[str, float]:
    """One epoch under a progress bar: its mean loss and accuracy."""
    steps = -(-len(train) // recipe.batch_size)
    generator = generator_for(recipe.seed, 2, epoch)
    batches = train_epoch(
        replica,
        train,
        lambda images, index: masks_for(images, len(index), epoch / recipe.epochs, generator),
        optimizer,
        batch_size=recipe.batch_size,
        generator=generator,
        learning_rate_at=lambda step: warmup_cosine(
            epoch * steps + step, recipe.epochs * steps, recipe.learning_rate, recipe.warmup_epochs * steps
        ),
        augmentation=recipe.augmentation,
        teacher=teacher,
        world=world,
    )
    label = f"epoch {epoch + 1}/{recipe.epochs}"
    done = list(track(batches, label, total=steps, disable=not world.is_main))
    return {
        "loss": sum(batch.loss for batch in done) / len(done),
        "train_accuracy": sum(batch.accuracy for batch in done) / len(done),
    }
