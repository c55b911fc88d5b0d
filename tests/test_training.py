"""Training loops, on real images but with networks small enough for seconds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from instanas_env.data import Augmentation, ImageSet, load_images
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.seeding import generator_for
from instanas_env.training.epoch import accuracy, predict_classes, sgd, train_epoch, warmup_cosine


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """Trousers (1) and bags (8) of the embedded set, 16 of each, as classes 0 and 1."""
    full = load_images("embedded", "train")
    chosen = full.take(torch.cat([(full.labels == label).nonzero().flatten()[:16] for label in (1, 8)]))
    return ImageSet(chosen.images, (chosen.labels == 8).long(), ("trouser", "bag"), full.mean, full.std)


def everything(meta_graph: MetaGraph):
    """A mask source that switches all modules on."""
    return lambda images, index: meta_graph.space.full_mask().expand(len(images), -1, -1)


def test_warmup_cosine_golden_values():
    """Ten steps, two of them warm-up, peak 0.8."""
    rates = [warmup_cosine(step, 10, 0.8, warmup=2) for step in range(10)]
    assert rates[:2] == pytest.approx([0.8 * 1 / 2, 0.8 * 2 / 2])
    cosine = [0.8 * (1 + math.cos(math.pi * k / (10 - 2))) / 2 for k in range(8)]
    assert rates[2:] == pytest.approx(cosine)
    assert rates[2] == 0.8 and rates[6] == pytest.approx(0.8 / 2)
    assert warmup_cosine(10, 10, 0.8, warmup=2) == pytest.approx(0.0)


def test_warmup_cosine_without_warmup_and_with_nothing_else():
    assert [warmup_cosine(k, 4, 1.0) for k in (0, 2, 4)] == pytest.approx([1.0, 0.5, 0.0])
    assert [warmup_cosine(k, 2, 1.0, warmup=2) for k in (0, 1)] == [0.5, 1.0]


def test_an_epoch_sees_every_image_once_in_random_order(tiny_space, images):
    """Masks are asked for the images that are trained on, by their position in the set."""
    meta_graph, seen = MetaGraph(tiny_space, 2).eval(), []
    optimizer = sgd(meta_graph, 0.1, 0.0, 0.0)

    def masks_for(batch: Tensor, index: Tensor) -> Tensor:
        assert torch.equal(batch, images.images[index])
        seen.append(index)
        return tiny_space.mobilenet_v2_mask().expand(len(batch), -1, -1)

    steps = train_epoch(meta_graph, images, masks_for, optimizer, batch_size=12, generator=generator_for(0))
    assert [step.count for step in steps] == [12, 12, 32 - 24]
    assert torch.cat(seen).sort().values.tolist() == list(range(32))
    assert torch.cat(seen).tolist() != list(range(32))
    assert meta_graph.training


def test_a_last_batch_of_one_is_left_out(tiny_space, images):
    """BatchNorm cannot normalise one image of one pixel. ``index`` limits the epoch to 9 = 4 + 4 + 1."""
    meta_graph, seen = MetaGraph(tiny_space, 2), []

    def masks_for(batch: Tensor, positions: Tensor) -> Tensor:
        seen.extend(positions.tolist())
        return tiny_space.mobilenet_v2_mask().expand(len(batch), -1, -1)

    subset = torch.arange(3, 30, 3)
    steps = train_epoch(
        meta_graph,
        images,
        masks_for,
        sgd(meta_graph, 0.1, 0.0, 0.0),
        batch_size=4,
        generator=generator_for(0),
        index=subset,
    )
    assert [step.count for step in steps] == [4, 4]
    assert len(set(seen)) == 8 and set(seen) < set(range(9))  # positions in the subset


def test_learning_rate_and_augmentation_reach_the_steps(tiny_space, images):
    meta_graph, changed = MetaGraph(tiny_space, 2), []

    def masks_for(batch: Tensor, index: Tensor) -> Tensor:
        assert batch.dtype == torch.uint8
        changed.append((batch != images.images[index]).flatten(1).any(1).float().mean().item())
        return tiny_space.mobilenet_v2_mask().expand(len(batch), -1, -1)

    steps = train_epoch(
        meta_graph,
        images,
        masks_for,
        sgd(meta_graph, 0.1, 0.0, 0.0),
        batch_size=16,
        generator=generator_for(0),
        learning_rate_at=lambda step: 0.01 * (step + 1),
        augmentation=Augmentation(),
    )
    assert [step.learning_rate for step in steps] == [0.01, 0.02]
    assert min(changed) > 0.5


def test_a_few_steps_teach_two_classes(tiny_space, images):
    """Chance is log 2; a trouser and a bag are easily told apart."""
    meta_graph = MetaGraph(tiny_space.only(2), 2, generator_for(0))
    optimizer = sgd(meta_graph, 0.05, 0.9, 0.0)
    masks_for = everything(meta_graph)
    epochs = []
    for epoch in range(12):
        generator = generator_for(0, epoch)
        steps = train_epoch(meta_graph, images, masks_for, optimizer, batch_size=16, generator=generator)
        epochs.append(list(steps))
    first, last = epochs[0][0], epochs[-1]
    assert first.loss == pytest.approx(math.log(2), abs=0.1)
    assert sum(step.loss for step in last) / len(last) < 0.3
    assert sum(step.accuracy for step in last) / len(last) > 0.9


def test_two_runs_are_equal_bit_for_bit(tiny_space, images):
    def weights(seed: int) -> Tensor:
        meta_graph = MetaGraph(tiny_space.only(0, 2), 2, generator_for(0))
        generator = generator_for(seed)
        list(
            train_epoch(
                meta_graph,
                images,
                lambda batch, index: meta_graph.space.random_masks(len(batch), 0.5, generator),
                sgd(meta_graph, 0.1, 0.9, 0.0),
                batch_size=8,
                generator=generator,
                augmentation=Augmentation(),
            )
        )
        return torch.cat([parameter.detach().flatten() for parameter in meta_graph.parameters()])

    first = weights(1)
    torch.manual_seed(7)
    assert torch.equal(weights(1), first)
    assert not torch.equal(weights(2), first)


def test_predictions_and_accuracy_by_hand(tiny_graph, tiny_space, images):
    """Each image by itself, through its own child; 10 classes, labels chosen so that the answer is 5 / 7."""
    seven = images.take(torch.arange(12, 19))
    masks = tiny_space.random_masks(7, 0.3, generator_for(0))
    with torch.no_grad():
        inputs = seven.normalize(seven.images[torch.arange(7)])
        logits = torch.cat([tiny_graph.child(mask)(inputs[i : i + 1]) for i, mask in enumerate(masks)])
    expected = logits.argmax(1)
    assert len(expected.unique()) > 1
    assert torch.equal(predict_classes(tiny_graph, seven, masks, batch_size=3), expected)
    labels = expected.clone()
    labels[:2] = (labels[:2] + 1) % 10
    relabelled = ImageSet(seven.images, labels, tuple("0123456789"), seven.mean, seven.std)
    assert accuracy(tiny_graph, relabelled, masks) == pytest.approx(5 / 7)


def test_one_mask_serves_all_images(tiny_graph, tiny_space, images):
    mask = tiny_space.path(3)
    alone = predict_classes(tiny_graph, images, mask)
    assert torch.equal(alone, predict_classes(tiny_graph, images, mask.expand(32, -1, -1)))


@pytest.mark.parametrize("training", [True, False])
def test_accuracy_leaves_the_meta_graph_as_it_was(tiny_space, images, training):
    meta_graph = MetaGraph(tiny_space, 2).train(training)
    before = {name: tensor.clone() for name, tensor in meta_graph.state_dict().items()}
    accuracy(meta_graph, images, tiny_space.full_mask())
    assert all(module.training == training for module in meta_graph.modules())
    assert all(parameter.requires_grad for parameter in meta_graph.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in meta_graph.state_dict().items())


@pytest.mark.parametrize(("momentum", "factor"), [(0.0, 1.0), (0.5, 1 + 0.5)])
def test_sgd_first_step(momentum, factor):
    """w - lr (1 + momentum) (g + decay w) by Nesterov's rule, whose buffer starts as the gradient."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    optimizer = sgd(layer, 0.1, momentum, 0.01)
    layer(torch.tensor([[3.0]])).backward()
    optimizer.step()
    assert layer.weight.item() == pytest.approx(2.0 - 0.1 * factor * (3.0 + 0.01 * 2.0))


def test_generators_of_different_keys_are_different_streams():
    """(0,) and (0, 0) too: the first epoch's stream must not be that of the run's initial weights."""
    keys = [(0,), (0, 0), (0, 0, 0), (0, 1), (1,), (1, 0), (2**32,)]
    draws = {tuple(torch.rand(4, generator=generator_for(*key)).tolist()) for key in keys}
    assert len(draws) == len(keys)
    assert torch.rand(1, generator=generator_for(3, 4)) == torch.rand(1, generator=generator_for(3, 4))
