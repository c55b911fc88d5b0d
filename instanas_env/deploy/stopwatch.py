"""The one file's own time, image by image, beside what the look-up table says (Figure 4, deployed)."""

from __future__ import annotations

import torch
from torch import Tensor

from instanas_env.deploy.profiling import EstimateQuality
from instanas_env.deploy.runtime import OnnxNetwork
from instanas_env.deploy.timing import low, time_interleaved


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
    network = OnnxNetwork(model)
    singles = [image[None].numpy() for image in images]
    told = [output.name for output in network.session.get_outputs()].index("latency_ms")
    estimated = torch.tensor([network.outputs(image)[told].item() for image in singles], dtype=torch.float64)
    calls = [lambda image=image: network.outputs(image) for image in singles]
    return EstimateQuality(estimated, low(time_interleaved(calls, repetitions, generator)))
