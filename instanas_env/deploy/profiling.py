"""Measuring the look-up table of this device, and what it estimates against the real thing (section 4.1).

The paper sums modules that were timed one by one. In an inference engine that misses half: a module alone
finds its input in the cache, pays for a call of its own, and fuses with nothing. So we time whole children,
as they are deployed, and let the table be what explains their times best: non-negative least squares over
the modules that each of them has. Batch 1, one thread, in turns, see :mod:`instanas_env.deploy.timing`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from instanas_env.deploy.timing import (
    Backend,
    check_backend,
    deployed,
    low,
    random_image,
    time_interleaved,
    time_networks,
)
from instanas_env.latency import LatencyTable
from instanas_env.networks.drop_path import sandwich_masks
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace

# Children that are called in turn with the controller.
WITH_CONTROLLER = 50


@dataclass(frozen=True)
class EstimateQuality:
    """How well a table estimates latencies by the clock (Figure 4); both are ms, float64 ``(K,)``."""

    estimated_ms: Tensor
    measured_ms: Tensor

    @property
    def correlation(self) -> float:
        """Pearson's."""
        return torch.corrcoef(torch.stack([self.estimated_ms, self.measured_ms]))[0, 1].item()

    @property
    def median_error(self) -> float:
        """The median of the relative errors."""
        return ((self.estimated_ms - self.measured_ms).abs() / self.measured_ms).median().item()


def profile_table(
    meta_graph: MetaGraph,
    controller: nn.Module | None,
    generator: torch.Generator,
    fitted: int = 400,
    children: int = 200,
    repetitions: int = 25,
    backend: Backend = "onnx",
    progress: Callable[[int], object] = lambda calls: None,
) -> tuple[LatencyTable, EstimateQuality]:
    """Measure the table of ``meta_graph``, and check it; latency does not depend on the weights.

    Args:
        meta_graph: on the device to measure.
        controller: images uint8 ``(1, 3, H, W)`` to anything; None leaves its entry at 0. It is one network
            that runs before every child, see :func:`time_controller`.
        generator: CPU generator, for masks, inputs and order.
        fitted: how many children the table is fitted to; at least 1.5 times as many as there are modules.
        children: how many others it is checked on (Figure 4).
        repetitions: of each.
        backend: what runs them.
        progress: called with the number of children that were timed once more.

    Raises:
        ValueError: so few children that their noise would be fitted, with most modules at no cost; or a
            backend that does not run on the meta-graph's device.
    """
    check_backend(backend, next(meta_graph.parameters()).device)  # not after all children are timed
    space = meta_graph.space
    enough = -(-3 * space.num_bits // 2)
    if fitted < enough:
        raise ValueError(f"fitted: got {fitted}; at least {enough} for {space.num_bits} modules will do")
    masks = torch.cat([random_children(space, count, generator) for count in (fitted, children)])
    real = time_children(meta_graph, masks, generator, repetitions, None, progress, backend)
    modules, fixed = fit_table(masks[:fitted], real[:fitted])
    controller_ms = 0.0
    if controller is not None:
        controller_ms = time_controller(
            meta_graph, controller, masks[:WITH_CONTROLLER], generator, repetitions, backend
        )
    alone = {"batch_size": 1, "threads": 1, "backend": runtime(backend)}
    record = {**alone, "children": fitted, "repetitions": repetitions}
    table = LatencyTable(space, modules, fixed, controller_ms, record=record)
    return table, EstimateQuality(table.lookup(masks[fitted:]), real[fitted:])


def random_children(space: SearchSpace, count: int, generator: torch.Generator) -> Tensor:
    """Masks ``(count, num_cells, num_modules)``: half of every density, half as pre-training ends with."""
    half = count // 2
    dense = space.random_masks(half, torch.rand(half, generator=generator), generator)
    return torch.cat([dense, sandwich_masks(space, count - half, 1.0, generator)])


def fit_table(masks: Tensor, real: Tensor) -> tuple[Tensor, float]:
    """The table that explains best how long networks take.

    Args:
        masks: bool ``(K, num_cells, num_modules)``.
        real: their ms, float64 ``(K,)``.

    Returns:
        ms of each module, float64 ``(num_cells, num_modules)``, and of what all have: not negative, and with
        the least squared error. Errors are weighed by 1 / sqrt(ms), between absolute and relative ones.
    """
    weights = real.rsqrt()
    present = torch.cat([masks.flatten(1).double(), torch.ones(len(masks), 1, dtype=torch.float64)], 1)
    costs, _ = nnls((present * weights.unsqueeze(1)).numpy(), (real * weights).numpy())
    return torch.from_numpy(costs[:-1]).view(masks.shape[1:]), float(costs[-1])


def runtime(backend: Backend) -> str:
    """The name and version of what a backend runs networks with."""
    if backend == "eager":
        return f"torch {torch.__version__}, BatchNorm folded"
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def time_controller(
    meta_graph: MetaGraph,
    controller: nn.Module,
    masks: Tensor,
    generator: torch.Generator,
    repetitions: int,
    backend: Backend,
) -> float:
    """Milliseconds of a controller that runs as often as all children together.

    It is called once for every child, in random order with them, so that it is as warm as a network that runs
    before each of them, and they are as cold as networks of which one runs now and then. (What it adds to
    children that it runs before is a difference of two times, and on a busy machine negative.)

    Args:
        meta_graph, repetitions, backend: as in :func:`profile_table`.
        controller: images uint8 ``(1, 3, H, W)`` to anything.
        masks: of the children, ``(K, num_cells, num_modules)``.
        generator: CPU generator, for the image and the order.
    """
    raw = random_image(meta_graph.space.resolution, generator, next(meta_graph.parameters()).device)
    image = raw.float().contiguous(memory_format=torch.channels_last)
    folded = meta_graph.folded()
    calls = [deployed(folded.child(mask), image, backend) for mask in masks]
    calls += [deployed(controller, raw, backend)] * len(masks)
    times = low(time_interleaved(calls, repetitions, generator, raw.device))
    return times[len(masks) :].median().item()


def time_children(
    meta_graph: MetaGraph,
    masks: Tensor,
    generator: torch.Generator,
    repetitions: int = 20,
    controller: nn.Module | None = None,
    progress: Callable[[int], object] = lambda calls: None,
    backend: Backend = "onnx",
) -> Tensor:
    """Milliseconds of each mask's real, separate network on one image, 20th percentile, float64 ``(K,)``.

    Args:
        meta_graph: on the device to measure where that is done in PyTorch.
        masks: ``(K, num_cells, num_modules)``.
        generator, repetitions, controller, progress, backend: see :func:`time_networks`.
    """
    side = meta_graph.space.resolution
    folded = meta_graph.folded()  # its children share its weights
    if backend == "onnx":
        folded.cpu()
    device = next(folded.parameters()).device
    children = (folded.child(mask) for mask in masks)
    return time_networks(children, side, generator, repetitions, controller, progress, backend, device)


def time_file(
    model: bytes, images: Tensor, generator: torch.Generator, repetitions: int = 20
) -> EstimateQuality:
    """Run an exported file on every image, in turns; estimated is what it says itself, with the controller.

    Args:
        model: from :func:`instanas_env.deploy.export.export`.
        images: uint8 ``(N, 3, H, W)``.
        generator: CPU generator, for the order.
        repetitions: of each image; the 20th percentile counts.
    """
    from instanas_env.deploy.runtime import OnnxNetwork

    network = OnnxNetwork(model)
    singles = [image[None].numpy() for image in images]
    told = [output.name for output in network.session.get_outputs()].index("latency_ms")
    estimated = torch.tensor([network.outputs(image)[told].item() for image in singles], dtype=torch.float64)
    calls = [lambda image=image: network.outputs(image) for image in singles]
    return EstimateQuality(estimated, low(time_interleaved(calls, repetitions, generator)))
