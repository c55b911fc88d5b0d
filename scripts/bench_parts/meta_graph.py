"""What `instanas bench` measures of the meta-graph itself, forward and backward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instanas_env.networks.counting import count_macs
from instanas_env.networks.gated import gated_logits
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from instanas_env.training.epoch import sgd
from scripts.bench_parts.ratios import Actions, Figure, Options, figure, interleaved, ratio


class DenseMetaGraph(nn.Module):
    """The released design, written plainly: every module for every image, times 0 or 1.

    Slow on purpose: what is measured is compared with it, and the tests compare results.

    Args:
        meta_graph: copied; in training mode this form's BatchNorm sees all images, masked-out ones too.
        memory_format: ``torch.contiguous_format`` (NCHW, as released) or ``torch.channels_last``.
    """

    def __init__(self, meta_graph: MetaGraph, memory_format: torch.memory_format = torch.contiguous_format):
        super().__init__()
        self.memory_format = memory_format
        self.meta_graph = copy.deepcopy(meta_graph).to(memory_format=memory_format)

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """As :meth:`MetaGraph.forward`."""
        images = images.contiguous(memory_format=self.memory_format)
        return gated_logits(self.meta_graph, images, masks.to(images.dtype))


def stem_and_head(folded: MetaGraph, images: Tensor) -> Tensor:
    """What every image pays, whatever its mask: head of maps that have the last cell's shape."""
    last = folded.space.cells[-1]
    side = last.resolution // last.stride
    stem = folded.stem(images.contiguous(memory_format=torch.channels_last))
    maps = stem.new_zeros(len(images), side, side, last.out_channels).permute(0, 3, 1, 2)
    return folded.head(maps)


@torch.inference_mode()
def evaluation(options: Options) -> Iterator[Figure]:
    """The forward pass: against the released design, against the mask's share, against the machine.

    The mask's share is counted in multiply-accumulates: of random fifths it is above a fifth, since cells
    that change shape and were left empty get the default module, the dearest.
    """
    space, batch = SearchSpace.preset("cifar"), 32 if options.quick else 256
    generator = generator_for(options.seed)
    meta_graph = MetaGraph(space, 10).eval()
    images = torch.randn(batch, 3, 32, 32, generator=generator)
    masks = {
        "all": space.full_mask().expand(batch, -1, -1),
        "half": space.random_masks(batch, 0.5, generator),
        "fifth": space.random_masks(batch, 0.2, generator),
        "mobilenet_v2": space.mobilenet_v2_mask().expand(batch, -1, -1),
    }
    dense, folded = DenseMetaGraph(meta_graph), meta_graph.folded()
    convolution = torch.nn.Conv2d(256, 256, 1, bias=False).to(memory_format=torch.channels_last)
    maps = torch.randn(64, 256, 32, 32).to(memory_format=torch.channels_last)
    actions: Actions = {"dense": partial(dense, images, masks["half"]), "1x1": partial(convolution, maps)}
    actions["stem and head"] = partial(stem_and_head, folded, images)
    actions |= {name: partial(folded, images, mask) for name, mask in masks.items()}
    seconds = interleaved(actions, options.rounds)
    for name, goal in {"all": 3, "half": 8, "fifth": 14, "mobilenet_v2": 10}.items():
        yield figure(f"images/s, {name}", [batch / s for s in seconds[name]])
        yield ratio(f"dense NCHW over {name}", seconds["dense"], seconds[name], f">= {goal}")
    macs = {name: 1e6 * count_macs(space, 10).lookup(mask).sum().item() for name, mask in masks.items()}
    for name, most in {"half": 0.52, "fifth": 0.22}.items():
        yield ratio(f"{name} over all", seconds[name], seconds["all"], f"<= {most}")
        yield figure(f"{name} over all, MACs", [macs[name] / macs["all"]])
    yield ratio("stem and head over all", seconds["stem and head"], seconds["all"])
    speed = [macs["half"] / s for s in seconds["half"]]
    peak = [256 * 256 * 32 * 32 * 64 / s for s in seconds["1x1"]]
    yield figure("GFLOP/s, 1x1 convolution", [2e-9 * p for p in peak])
    yield ratio("FLOP/s at half over 1x1 convolution's", speed, peak, ">= 0.6")


def batch_sizes(options: Options) -> Iterator[Figure]:
    """Time per image from small batches to large ones, half masks."""
    space, generator = SearchSpace.preset("cifar"), generator_for(options.seed)
    folded = MetaGraph(space, 10).eval().folded()
    sizes = (16, 64) if options.quick else (64, 256, 1024)

    def forward(size: int) -> Callable[[], Any]:
        images = torch.randn(size, 3, 32, 32, generator=generator)
        masks = space.random_masks(size, 0.5, generator)
        return torch.inference_mode()(lambda: folded(images, masks))

    seconds = interleaved({str(size): forward(size) for size in sizes}, options.rounds)
    for size in sizes[1:]:
        first = [s * size / sizes[0] for s in seconds[str(sizes[0])]]
        yield ratio(f"per image, batch {size} over {sizes[0]}", seconds[str(size)], first, "0.9 to 1.1")


def training(options: Options) -> Iterator[Figure]:
    """A step of forward, backward and SGD at width 0.5, against dense channels_last."""
    space, batch = SearchSpace.preset("cifar", 0.5), 16 if options.quick else 128
    generator = generator_for(options.seed)
    images = torch.randn(batch, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (batch,), generator=generator)
    meta_graph = MetaGraph(space, 10).train()
    dense = DenseMetaGraph(meta_graph, torch.channels_last)
    per_image = space.random_masks(batch, 0.5, generator)
    per_batch = space.random_masks(1, 0.5, generator).expand(batch, -1, -1)

    def step(network: torch.nn.Module, masks: Tensor) -> Callable[[], None]:
        """A training step of ``network`` under ``masks``."""
        optimizer = sgd(network, 1e-3, 0.9, 0.0)

        def run() -> None:
            optimizer.zero_grad()
            F.cross_entropy(network(images, masks), labels).backward()
            optimizer.step()

        return run

    steps: Actions = {
        "dense": step(dense, per_image),
        "batch": step(meta_graph, per_batch),
        "image": step(meta_graph, per_image),
    }
    seconds = interleaved(steps, options.rounds)
    yield ratio("training: dense over one mask a batch", seconds["dense"], seconds["batch"], ">= 2.5")
    yield ratio("training: dense over one mask an image", seconds["dense"], seconds["image"], ">= 2.0")
