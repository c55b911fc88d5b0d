"""A clock for networks at batch 1 on one thread: interleaved repetitions, a low percentile.

Repetitions are taken in interleaved random order, so that a slow moment of the machine touches all calls
alike, and a network finds the caches as another one left them: as on a device that does other things between
two images. (Called again and again, small networks take half as long, and times no longer add up.) What else
the machine does only ever adds time, so a low percentile is nearer to the network's own than the median.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

Backend = Literal["eager", "onnx"]
BACKENDS = get_args(Backend)
WARM_UP = 10
PERCENTILE = 0.2
GROUP_BYTES = 2**30
"""Networks are timed in turns with as many others as hold so many bytes of weights: onnxruntime keeps up to
four times as many, and memory ends."""
COMMON = 10
"""So many networks are timed in every group."""


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside, the former number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
@torch.inference_mode()
def time_interleaved(
    calls: Sequence[Callable[[], object]],
    repetitions: int,
    generator: torch.Generator,
    device: torch.device | None = None,
    progress: Callable[[int], object] = lambda calls: None,
) -> Tensor:
    """Milliseconds of each call and repetition on one thread, float64 ``(len(calls), repetitions)``.

    Args:
        calls: what to time, without arguments.
        repetitions: rounds; each round times every call once, in an order drawn from ``generator``.
        generator: CPU generator.
        device: a GPU is waited for before and after each call.
        progress: called after every round with the number of calls.
    """
    on_gpu = device is not None and device.type == "cuda"
    wait: Callable[[], object] = partial(torch.cuda.synchronize, device) if on_gpu else lambda: None
    for call in calls:
        for _ in range(WARM_UP):
            call()
    elapsed = torch.empty(len(calls), repetitions, dtype=torch.float64)
    for repetition in range(repetitions):
        for i in torch.randperm(len(calls), generator=generator).tolist():
            wait()
            start = time.perf_counter()
            calls[i]()
            wait()
            elapsed[i, repetition] = 1e3 * (time.perf_counter() - start)
        progress(len(calls))
    return elapsed


def low(elapsed: Tensor) -> Tensor:
    """The 20th percentile over repetitions, ``(K, repetitions)`` to ``(K,)``."""
    return elapsed.quantile(PERCENTILE, dim=1)


def check_backend(backend: str, device: torch.device) -> None:
    """``ValueError`` for an unknown backend, and for onnxruntime on a GPU."""
    if backend not in BACKENDS or (backend == "onnx" and device.type != "cpu"):
        raise ValueError(f"backend: got {backend!r} on {device.type}; eager, or onnx on the cpu, will do")


def deployed(network: nn.Module, example: Tensor, backend: Backend) -> Callable[[], object]:
    """A call of ``network`` as the backend runs it, on one image.

    Args:
        network: folded, in evaluation mode; a controller takes uint8 images, others normalised ones.
        example: the image ``(1, 3, H, W)``, on the device that is to compute.
        backend: "onnx" runs it in onnxruntime (on the CPU), "eager" in PyTorch.

    Raises:
        ValueError: an unknown backend, or onnxruntime for a GPU.
    """
    check_backend(backend, example.device)
    if backend == "eager":
        return lambda: network(example)
    from instanas_env.deploy.onnx_graph import to_onnx
    from instanas_env.deploy.runtime import OnnxNetwork

    onnx_network, image = OnnxNetwork(to_onnx(network.eval(), example)), example.numpy()
    return lambda: onnx_network.outputs(image)


def random_image(side: int, generator: torch.Generator, device: torch.device | None = None) -> Tensor:
    """An image of noise, uint8 ``(1, 3, side, side)``: no network's time depends on what it sees."""
    return torch.randint(256, (1, 3, side, side), generator=generator, dtype=torch.uint8).to(device)


def time_networks(
    networks: Iterable[nn.Module],
    side: int,
    generator: torch.Generator,
    repetitions: int = 20,
    controller: nn.Module | None = None,
    progress: Callable[[int], object] = lambda calls: None,
    backend: Backend = "onnx",
    device: torch.device | None = None,
) -> Tensor:
    """Milliseconds of each network on one image, 20th percentile, float64 ``(K,)``.

    All are timed in the same rounds, so that a machine that gets slower on the way slows all alike; large
    ones in groups that fit into memory, see :data:`GROUP_BYTES`. A machine may be 20 % slower a minute later,
    so the first networks are timed in every group again, and its times are scaled by what theirs have become.

    Args:
        networks: as deployed (BatchNorm folded), normalised images ``(1, 3, side, side)`` to logits.
        side: of the image, px.
        generator: CPU generator, for the image and the order.
        repetitions: the percentile is taken over so many.
        controller: if given, run before each network, as it is when the network has to be chosen.
        progress: called with the number of networks that were timed once more.
        backend: see :func:`deployed`.
        device: where the networks are; None means the CPU.
    """
    raw = random_image(side, generator, device)
    image = raw.float().contiguous(memory_format=torch.channels_last)
    choose = None if controller is None else deployed(controller, raw, backend)

    def whole(network: Callable[[], object]) -> Callable[[], object]:
        return network if choose is None else lambda: (choose(), network())

    def timed(common: list[nn.Module], group: list[nn.Module]) -> list[Tensor]:
        calls = [whole(deployed(network, image, backend)) for network in [*common, *group]]
        rounds = time_interleaved(calls, repetitions, generator, raw.device, lambda _: progress(len(group)))
        return list(low(rounds).split([len(common), len(group)]))

    groups = in_groups(networks)
    first = next(groups)
    common, times = first[:COMMON], [timed([], first)[1]]
    for group in groups:
        again, own = timed(common, group)
        times.append(own * (times[0][: len(common)] / again).median())
    return torch.cat(times)


def in_groups(networks: Iterable[nn.Module]) -> Iterator[list[nn.Module]]:
    """Networks in order, in groups that hold at most :data:`GROUP_BYTES` of weights, or one network."""
    group: list[nn.Module] = []
    held = 0
    for network in networks:
        size = sum(weight.nbytes for weight in network.parameters())
        if group and held + size > GROUP_BYTES:
            yield group
            group, held = [], 0
        group.append(network)
        held += size
    if group:
        yield group
