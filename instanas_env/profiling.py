"""Measuring latencies on this device: the look-up table, and what it estimates against the real thing.

Batch 1, one thread, evaluation mode, BatchNorm folded; in turns, see :mod:`instanas_env.timing`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from instanas_env.latency import LatencyTable
from instanas_env.meta_graph import MetaGraph
from instanas_env.modules import fold_batch_norm
from instanas_env.timing import Backend, one_thread, time_interleaved, time_networks


def profile_modules(
    meta_graph: MetaGraph,
    controller: nn.Module | None,
    generator: torch.Generator,
    repetitions: int = 200,
    progress: Callable[[], None] = lambda: None,
) -> LatencyTable:
    """Measure the table of ``meta_graph``; latency does not depend on its weights.

    A module is timed together with the addition that joins it to its cell.

    Args:
        meta_graph: on the device to measure.
        controller: images uint8 ``(1, 3, H, W)`` to anything; None leaves its entry at 0.
        generator: CPU generator, for inputs and order.
        repetitions: the median is taken over so many.
        progress: called ``repetitions`` times.
    """
    space = meta_graph.space
    device = next(meta_graph.parameters()).device

    def random_input(channels: int, side: int) -> Tensor:
        x = torch.randn(1, channels, side, side, generator=generator).to(device)
        return x.contiguous(memory_format=torch.channels_last)

    def part(module: nn.Module, x: Tensor) -> Callable[[], object]:
        return lambda: module(x)

    def joined(module: nn.Module, x: Tensor) -> Callable[[], object]:
        total = module(x)
        return lambda: total + module(x)

    side = space.resolution
    last = space.cells[-1]
    with one_thread():
        folded = meta_graph.folded()
        calls = [
            part(folded.stem, random_input(3, side)),
            part(folded.head, random_input(last.out_channels, last.resolution // last.stride)),
        ]
        if controller is not None:
            image = torch.randint(256, (1, 3, side, side), generator=generator, dtype=torch.uint8).to(device)
            calls.append(part(controller, image))
        before_modules = len(calls)
        for spec, cell in zip(space.cells, folded.cells, strict=True):
            x = random_input(spec.in_channels, spec.resolution)
            calls += [joined(option, x) for option in cell.options]  # type: ignore[union-attr]
        elapsed = time_interleaved(calls, repetitions, generator, device, progress)
    medians = elapsed.median(1).values
    quartiles = elapsed.quantile(torch.tensor([0.25, 0.75], dtype=torch.float64), dim=1)
    spread = ((quartiles[1] - quartiles[0]) / medians)[before_modules:]
    return LatencyTable(
        space=space,
        modules=medians[before_modules:].reshape(space.num_cells, space.num_modules),
        stem=medians[0].item(),
        head=medians[1].item(),
        controller=medians[2].item() if controller is not None else 0.0,
        record={
            "batch_size": 1,
            "threads": 1,
            "backend": "eager, BatchNorm folded",
            "repetitions": repetitions,
            "median_relative_interquartile_range": spread.median().item(),
        },
    )


def time_children(
    meta_graph: MetaGraph,
    masks: Tensor,
    generator: torch.Generator,
    repetitions: int = 20,
    controller: nn.Module | None = None,
    progress: Callable[[], None] = lambda: None,
    backend: Backend = "eager",
) -> Tensor:
    """Median milliseconds of each mask's real, separate network on one image, float64 ``(K,)``.

    Args:
        meta_graph: on the device to measure.
        masks: ``(K, num_cells, num_modules)``.
        generator: CPU generator, for the image and the order.
        repetitions: the median is taken over so many.
        controller: if given, run before each child, as it is when the mask has to be chosen.
        progress: called ``repetitions`` times.
        backend: "eager" runs them in PyTorch, "onnx" in onnxruntime (on the CPU).
    """
    device = next(meta_graph.parameters()).device
    folded = (
        meta_graph.folded()
    )  # its children share its weights; hundreds with their own would fill the memory
    children = (folded.child(mask) for mask in masks)
    side = meta_graph.space.resolution
    return time_networks(children, side, generator, repetitions, controller, progress, backend, device)


@dataclass(frozen=True)
class EstimateQuality:
    """How well a table estimates real latencies (Figure 4).

    ``estimated`` and ``real`` are ms ``(K,)``; ``correlation`` is Pearson's, ``median_error`` relative.
    """

    estimated: Tensor
    real: Tensor

    @property
    def correlation(self) -> float:
        return torch.corrcoef(torch.stack([self.estimated, self.real]))[0, 1].item()

    @property
    def median_error(self) -> float:
        return ((self.estimated - self.real).abs() / self.real).median().item()

    @property
    def scale(self) -> float:
        """The median ratio of real latency to estimate."""
        return (self.real / self.estimated).median().item()


def compare_with_real(
    table: LatencyTable,
    meta_graph: MetaGraph,
    count: int,
    generator: torch.Generator,
    repetitions: int = 20,
    progress: Callable[[], None] = lambda: None,
) -> EstimateQuality:
    """Estimated against real latency of ``count`` random children of every density (Figure 4)."""
    keep = torch.rand(count, generator=generator)
    masks = table.space.random_masks(count, keep, generator)
    real = time_children(meta_graph, masks, generator, repetitions, progress=progress)
    return EstimateQuality(table.lookup(masks), real)


def calibrate(table: LatencyTable, scale: float) -> LatencyTable:
    """A table whose estimates are scaled by a factor, what a network takes over what its modules take alone.

    It may lie on either side of 1: in a network the calls that join the modules take their time as well,
    but each module finds its input in the cache, which it does not when modules are timed in turns. The
    controller, which runs by itself, is left as measured.
    """
    return replace(
        table,
        modules=table.modules * scale,
        stem=table.stem * scale,
        head=table.head * scale,
        record={**table.record, "calibration": scale},
    )


def fold_for_timing(controller: nn.Module) -> nn.Module:
    """A controller as it is deployed: evaluation mode, BatchNorm folded, no gradients."""
    return fold_batch_norm(controller)
