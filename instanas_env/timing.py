"""A clock for networks at batch 1 on one thread: interleaved repetitions, medians.

Repetitions are taken in interleaved random order, so that a slow moment of the machine touches all calls
alike, and a part runs after another one, as it does in a network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

Backend = Literal["eager", "onnx"]
BACKENDS = get_args(Backend)
WARM_UP = 10


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside, the former number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def time_interleaved(
    calls: Sequence[Callable[[], object]],
    repetitions: int,
    generator: torch.Generator,
    device: torch.device | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Tensor:
    """Milliseconds of each call and repetition, float64 ``(len(calls), repetitions)``.

    Args:
        calls: what to time, without arguments.
        repetitions: rounds; each round times every call once, in an order drawn from ``generator``.
        generator: CPU generator.
        device: a GPU is waited for before and after each call.
        progress: called after every round.
    """
    wait = torch.cuda.synchronize if device is not None and device.type == "cuda" else lambda: None
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
        progress()
    return elapsed


def time_networks(
    networks: Iterable[nn.Module],
    side: int,
    generator: torch.Generator,
    repetitions: int = 20,
    controller: nn.Module | None = None,
    progress: Callable[[], None] = lambda: None,
    backend: Backend = "eager",
    device: torch.device | None = None,
) -> Tensor:
    """Median milliseconds of each network on one image, float64 ``(K,)``.

    Args:
        networks: as deployed (BatchNorm folded), normalised images ``(1, 3, side, side)`` to logits.
        side: of the image, px.
        generator: CPU generator, for the image and the order.
        repetitions: the median is taken over so many.
        controller: if given, run before each network, as it is when the network has to be chosen.
        progress: called ``repetitions`` times.
        backend: "eager" runs them in PyTorch, "onnx" in onnxruntime (on the CPU).
        device: where the networks are; None means the CPU.
    """
    device = torch.device("cpu") if device is None else device
    if backend not in BACKENDS or (backend == "onnx" and device.type != "cpu"):
        raise ValueError(f"backend: got {backend!r} on {device.type}; eager, or onnx on the cpu, will do")
    raw = torch.randint(256, (1, 3, side, side), generator=generator, dtype=torch.uint8).to(device)
    image = raw.float().contiguous(memory_format=torch.channels_last)

    def deployed(network: nn.Module, example: Tensor) -> Callable[[], object]:
        """``network`` as the backend runs it, on one image."""
        if backend == "eager":
            return lambda: network(example)
        from instanas_env.onnx_network import OnnxNetwork, to_onnx

        onnx_network = OnnxNetwork(to_onnx(network.eval(), example))
        return lambda: onnx_network(example)

    choose = None if controller is None else deployed(controller, raw)

    def whole(network: Callable[[], object]) -> Callable[[], object]:
        return network if choose is None else lambda: (choose(), network())

    with one_thread():
        calls = [whole(deployed(network, image)) for network in networks]
        return time_interleaved(calls, repetitions, generator, device, progress).median(1).values
