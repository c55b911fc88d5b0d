"""A choice of its own for each class, so that modules which start alike become experts for something.

Left to themselves, experts differ too little for a controller to tell who is good at what, and so stay alike.
With classes the controller has an opinion from the start: the images that it takes for a cat go one way. What
trains there learns what a cat is often mistaken for, and which way an image came is a hint to it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agents.arms import Arms

DRAWS = 4096  # of choices, to find different ones among


def class_choices(
    arms: Arms, latencies: Tensor, count: int, latency_ms: float, generator: torch.Generator
) -> Tensor:
    """Choices bool ``(count, arms.count)``, all different if there are as many, in a random order.

    They are those of :data:`DRAWS` random ones whose latency is next to ``latency_ms``, so that no class is
    favoured.

    Args:
        arms: what is chosen between.
        latencies: of each arm ``(arms.count,)``, ms.
        count: how many.
        latency_ms: the sum over a choice's arms that is wanted.
        generator: draws.
    """
    choices = torch.unique(arms.random(DRAWS, generator), dim=0)
    order = ((choices * latencies).sum(1) - latency_ms).abs().argsort(stable=True)
    nearest = choices[order[:count]]
    return nearest[torch.randperm(count, generator=generator) % len(nearest)]
