"""The one file's own time, image by image, beside what the look-up table says (Figure 4, deployed)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from instanas_env.deploy.runtime import OnnxNetwork
from instanas_env.deploy.timing import low, one_thread, time_interleaved


@dataclass(frozen=True)
class DeployedTimes:
    """ms of each image, float64 ``(N,)``: measured, and by the table with the controller's."""

    measured_ms: np.ndarray
    table_ms: np.ndarray

    @property
    def correlation(self) -> float:
        """Pearson's, over the images."""
        return float(np.corrcoef(self.measured_ms, self.table_ms)[0, 1])

    @property
    def ratio(self) -> float:
        """Mean measured time over the mean of the table."""
        return float(self.measured_ms.mean() / self.table_ms.mean())


def time_file(
    model: bytes, images: Tensor, generator: torch.Generator, repetitions: int = 20
) -> DeployedTimes:
    """Run an exported file on every image, in turns.

    Args:
        model: from :func:`instanas_env.deploy.export.export`.
        images: uint8 ``(N, 3, H, W)``.
        generator: CPU generator, for the order.
        repetitions: of each image; the 20th percentile counts.
    """
    network = OnnxNetwork(model)
    singles = [image[None].numpy() for image in images]
    names = [output.name for output in network.session.get_outputs()]
    told = names.index("latency_ms")
    table_ms = np.array([float(network.outputs(image)[told][0]) for image in singles])
    calls = [lambda image=image: network.outputs(image) for image in singles]
    with one_thread():
        elapsed = time_interleaved(calls, repetitions, generator)
    return DeployedTimes(low(elapsed).numpy(), table_ms)
