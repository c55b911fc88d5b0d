"""Training the weights of a meta-graph on images and the masks that go with them.

Pre-training, the epochs inside the search and fine-tuning differ in where the masks come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instanas_env.data import DRAWS_PER_IMAGE, Augmentation, ImageSet, augment
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.training.distributed import ALONE, World

MaskSource = Callable[[Tensor, Tensor], Tensor]
"""Images uint8 ``(B, 3, H, W)`` as trained on, and their positions ``(B,)``: gives masks of the batch.

Where several processes train, the images are this one's; positions and masks are those of the whole batch."""

Teacher = Callable[[Tensor], Tensor]
"""Normalised images ``(B, 3, H, W)`` to logits ``(B, num_classes)``."""


@dataclass(frozen=True)
class BatchStatistics:
    """One training batch: its mean loss, fraction correct, number of images, and learning rate."""

    loss: float
    accuracy: float
    count: int
    learning_rate: float


def warmup_cosine(step: int, total: int, peak: float, warmup: int = 0) -> float:
    """Learning rate at ``step`` of ``total``: linear to ``peak`` over ``warmup`` steps, then cosine to 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return 0.5 * peak * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def train_epoch(
    meta_graph: nn.Module,
    image_set: ImageSet,
    masks_for: MaskSource,
    optimizer: torch.optim.Optimizer,
    *,
    batch_size: int,
    generator: torch.Generator,
    learning_rate_at: Callable[[int], float] | None = None,
    augmentation: Augmentation | None = None,
    index: Tensor | None = None,
    teacher: Teacher | None = None,
    world: World = ALONE,
) -> Iterator[BatchStatistics]:
    """Train for one pass over ``image_set`` in random order, yielding after every step.

    Args:
        meta_graph: trained in place; left in training mode. In a world: what
            :meth:`World.replicate` gave.
        image_set: the images.
        masks_for: gives the masks of a batch; they are used as they are.
        optimizer: over the meta-graph's parameters.
        batch_size: images a step, of all processes. A last batch of fewer than two images (BatchNorm), or of
            fewer than there are processes, is left out.
        generator: CPU generator for order and augmentation.
        learning_rate_at: learning rate by step of this epoch; None leaves the optimizer's.
        augmentation: None trains on the images as they are.
        index: the images to train on, ``(n,)``, repetitions allowed; None means all. The positions that
            ``masks_for`` is given count in it.
        teacher: gives logits to imitate; the loss is then the mean of the cross-entropies with the labels
            and with the teacher's probabilities (distillation).
        world: the processes that share every batch; statistics are those of the whole batch.
    """
    device = next(meta_graph.train().parameters()).device
    index = torch.arange(len(image_set)) if index is None else index
    order = torch.randperm(len(index), generator=generator)
    for step, positions in enumerate(order.split(batch_size)):
        if len(positions) < max(2, world.size):
            break
        chosen = index[world.own(positions)]
        if learning_rate_at is not None:
            set_learning_rate(optimizer, learning_rate_at(step))
        images = image_set.images[chosen]
        if augmentation is not None:
            uniforms = torch.rand(len(positions), DRAWS_PER_IMAGE, generator=generator)
            images = augment(images, augmentation, world.own(uniforms))
        inputs = image_set.normalize(images.to(device))
        masks = masks_for(images, positions)
        elsewhere = None if world.size == 1 else masks.any(0)
        logits = meta_graph(inputs, world.own(masks), elsewhere)
        labels = image_set.labels[chosen].to(device)
        loss = _loss(logits, labels, inputs, teacher)
        share = len(chosen) * world.size / len(positions)  # 1 where all have as many images
        optimizer.zero_grad()
        (loss * share).backward()
        optimizer.step()
        right = (logits.argmax(1) == labels).float().mean()
        mean_loss, mean_right = world.mean([loss.item(), right.item()], share)
        yield BatchStatistics(mean_loss, mean_right, len(positions), optimizer.param_groups[0]["lr"])


def _loss(logits: Tensor, labels: Tensor, inputs: Tensor, teacher: Teacher | None) -> Tensor:
    """Cross-entropy with the labels; with a teacher the mean of that and of the one with its answers."""
    loss = F.cross_entropy(logits, labels)
    if teacher is None:
        return loss
    with torch.no_grad():
        target = teacher(inputs).softmax(1)
    return (loss + F.cross_entropy(logits, target)) / 2


@torch.inference_mode()
def predict_classes(
    meta_graph: nn.Module,
    image_set: ImageSet,
    masks: Tensor,
    batch_size: int = 256,
    world: World = ALONE,
) -> Tensor:
    """Predicted class ``(N,)`` of every image of a set.

    Args:
        meta_graph: in evaluation mode, or folded.
        image_set: the images.
        masks: ``(N, cells, modules)`` or one ``(cells, modules)`` for all; repaired by the caller.
        batch_size: images at a time.
        world: the processes that share the set; all get all predictions.
    """
    device = next(meta_graph.parameters()).device
    masks = masks.expand(len(image_set), -1, -1)
    predictions = []
    for index in world.own(torch.arange(len(image_set))).split(batch_size):
        images = image_set.normalize(image_set.images[index].to(device))
        predictions.append(meta_graph(images, masks[index]).argmax(1).cpu())
    return world.gather(torch.cat(predictions), len(image_set))


def accuracy(meta_graph: MetaGraph, image_set: ImageSet, masks: Tensor, world: World = ALONE) -> float:
    """Fraction of a set that the meta-graph gets right under ``masks``; see :func:`predict_classes`."""
    was_training = meta_graph.training
    predictions = predict_classes(meta_graph.eval().folded(), image_set, masks, world=world)
    meta_graph.train(was_training)
    return (predictions == image_set.labels).float().mean().item()


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """The learning rate of all parameters from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def sgd(module: nn.Module, learning_rate: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """Nesterov SGD over a module's parameters (plain SGD where momentum is 0)."""
    return torch.optim.SGD(
        module.parameters(), learning_rate, momentum, weight_decay=weight_decay, nesterov=momentum > 0
    )
