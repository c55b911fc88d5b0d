"""What an agent sees of an image: the image, channels first or last, or a small vector of features.

The features are for linear bandits, which need few numbers that mean something. They are computed from whole
numbers, so that an image has the same features alone, in a batch and on every machine, to the bit.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from instanas_env import checks
from instanas_env.contextual import Contexts

LAYOUTS = ("CHW", "HWC")
OBSERVATIONS = ("image", "features")
GRID = 4
NUM_FEATURES = 3 + 3 + 2 + GRID * GRID


class Observer:
    """Turns images into observations.

    Args:
        side: height and width of the images in px.
        layout: "CHW" or "HWC", of the images.
        observation: "image", or "features" (see :func:`features`; the layout then means nothing).

    Attributes:
        space: of one observation.
    """

    def __init__(self, side: int, layout: str = "CHW", observation: str = "image"):
        self.layout = checks.choice("layout", layout, LAYOUTS)
        self.observation = checks.choice("observation", observation, OBSERVATIONS)
        if observation == "features":
            self.space: spaces.Box = spaces.Box(0.0, 1.0, (NUM_FEATURES,), np.float32)
        else:
            shape = (3, side, side) if layout == "CHW" else (side, side, 3)
            self.space = spaces.Box(0, 255, shape, np.uint8)  # type: ignore[arg-type]

    def __call__(self, contexts: Contexts) -> np.ndarray:
        """The observations ``(n, *space.shape)`` of n images; an array of its own."""
        images = contexts.images
        if self.observation == "features":
            return features(images)
        array = images.numpy()
        return (array if self.layout == "CHW" else array.transpose(0, 2, 3, 1)).copy(order="C")


def features(images: Tensor) -> np.ndarray:
    """24 numbers in 0..1 of each image, float32 ``(n, 24)``, from uint8 ``(n, 3, H, W)``.

    0-2: mean of red, green, blue. 3-5: twice their standard deviations. 6, 7: mean absolute difference of
    neighbours along a row and along a column, of grey (edges and texture). 8-23: mean of grey in a grid of
    4 x 4 fields, row by row. Grey is the mean of the channels; 1 is full brightness.
    """
    pixels = images.to(torch.int64)
    count = pixels.shape[-2] * pixels.shape[-1]
    total, squares = pixels.sum((2, 3)), (pixels**2).sum((2, 3))
    variance = (count * squares - total**2).double() / count**2
    grey = pixels.sum(1)  # (n, H, W), three times grey
    edges = [grey.diff(dim=dim).abs().flatten(1).double() for dim in (2, 1)]
    fields = grey.unflatten(1, (GRID, -1)).unflatten(3, (GRID, -1)).sum((2, 4)).flatten(1)
    parts = [
        total.double() / (255 * count),
        variance.sqrt() / 127.5,
        torch.stack([edge.sum(1) / (765 * edge.shape[1]) for edge in edges], 1),
        fields.double() / (765 * count // GRID**2),
    ]
    return torch.cat(parts, 1).clamp(0, 1).float().numpy()
