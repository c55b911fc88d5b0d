"""Make the images that come with the package: 6,000 of Fashion-MNIST, balanced by class.

    python -m tests.tools.embed_images

The same bytes every time: the first 400 (train), 100 (val) and 100 (test) images of every class, in
the order of the files, from the splits of ``load_images("fashion_mnist", ...)``.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from instanas_env.data import SPLITS, load_images
from instanas_env.storage import write_atomic

PER_CLASS = {"train": 400, "val": 100, "test": 100}


@dataclass(frozen=True)
class Options:
    """Where to write."""

    out: Path = Path("instanas_env/assets/fashion_mnist_6k.npz")
    """The file to make."""
    data_dir: Path | None = None
    """Where torchvision's download goes, if Debian's dataset-fashion-mnist is not installed."""


def main(options: Options) -> None:
    """Write the file."""
    arrays: dict[str, Any] = {}
    for split in SPLITS:
        full = load_images("fashion_mnist", split, options.data_dir)
        members = [(full.labels == label).nonzero().flatten()[: PER_CLASS[split]] for label in range(10)]
        chosen = full.take(torch.cat(members).sort().values)
        assert isinstance(chosen.images, torch.Tensor)
        arrays[f"{split}_images"] = chosen.images[:, 0, 2:-2, 2:-2].numpy()  # without the black rim
        arrays[f"{split}_labels"] = chosen.labels.numpy().astype(np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(options.out, buffer.getvalue())
    print(f"{options.out}: {len(buffer.getvalue()):,} bytes")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
