"""What `instanas bench` measures of the one ONNX file: what its choices cost, and what the table tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn

from agents.controller import Controller
from instanas_env.deploy.dynamic import dynamic_model, static_model
from instanas_env.deploy.onnx_graph import OnnxGraph, to_onnx
from instanas_env.deploy.profiling import profile_table, random_children
from instanas_env.deploy.runtime import OnnxNetwork
from instanas_env.deploy.timing import low, one_thread, time_interleaved
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.networks.modules import fold_batch_norm
from instanas_env.search_space import SearchSpace
from instanas_env.seeding import generator_for
from scripts.bench_parts.ratios import Figure, Options, figure, ratio

STATISTICS = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def one_file(options: Options) -> Iterator[Figure]:
    """The one ONNX file over static children behind the controller, and against the table; cifar@0.5."""
    space, generator = SearchSpace.preset("cifar", 0.5), generator_for(options.seed)
    meta_graph = MetaGraph(space, 10, generator).eval().folded()
    controller = fold_batch_norm(Controller(space))
    fitted, count, repetitions = (130, 12, 2) if options.quick else (400, 500, 15)
    table, _ = profile_table(meta_graph, controller, generator, fitted, 0, repetitions)
    masks = random_children(space, count, generator)
    images = with_masks(masks, space)
    write = partial(bits_in_pixels, controller=controller, bits=space.num_bits)
    file = OnnxNetwork(dynamic_model(meta_graph, write, table, table.controller, *STATISTICS))
    few = range(min(count, 100))  # static children take much memory
    choose = OnnxNetwork(to_onnx(controller, torch.from_numpy(images[0])))
    children = [OnnxNetwork(static_model(meta_graph, masks[i], *STATISTICS)) for i in few]

    def static(i: int) -> Callable[[], Any]:
        """What the file would do if it knew the mask before."""
        return lambda: (choose.outputs(images[i]), children[i].outputs(images[i]))

    calls: list[Callable[[], Any]] = [partial(file.outputs, image) for image in images]
    with one_thread():
        times = low(time_interleaved(calls + [static(i) for i in few], repetitions, generator))
    dynamic, apart = times[:count], times[count:]
    yield ratio(
        "cifar@0.5: the one file over static children",
        dynamic[: len(few)].tolist(),
        apart.tolist(),
        "<= 1.25",
    )
    told = table.lookup(masks) + table.controller
    correlation = torch.corrcoef(torch.stack([dynamic, told]))[0, 1].item()
    yield figure("cifar@0.5: the one file against the table: correlation", [correlation], ">= 0.98")


def with_masks(masks: Tensor, space: SearchSpace) -> np.ndarray:
    """An image for each mask, which its first pixels are: uint8 ``(K, 1, 3, H, W)``."""
    images = np.zeros((len(masks), 3 * space.resolution**2), np.uint8)
    images[:, : space.num_bits] = masks.flatten(1).numpy()
    return images.reshape(len(masks), 1, 3, space.resolution, space.resolution)


def bits_in_pixels(graph: OnnxGraph, image: str, controller: nn.Module, bits: int) -> str:
    """A policy that runs a controller, and then takes the mask that the image holds: any mask can be had."""
    logits = graph.network(controller, image)
    flat = graph.op("Reshape", image, graph.constant(np.array([1, -1])))
    first = graph.op("Gather", flat, graph.constant(np.arange(bits)), axis=1)
    never = graph.op("Less", logits, graph.constant(np.float32(-1e30)))  # or it would be optimised away
    return graph.op("Or", graph.op("Cast", first, to=TensorProto.BOOL), never)
