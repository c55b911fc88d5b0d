"""What an unfinished table knows, in parts beside its file: each is written whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from instanas_env.data import ImageSet
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.storage import load_weights, save_weights
from instanas_env.tabulated import answers, pack
from instanas_env.training.run_directory import FREE, RunDirectory

BLOCK = 8
"""Masks of a part: a byte of every image."""


class Parts:
    """The folder ``OUT.parts``.

    Args:
        out: the file that the table will be.
        options: a dataclass, what the table is made by; a folder with others is refused.

    Raises:
        ValueError: the folder belongs to a table with other options.
    """

    def __init__(self, out: Path, options: Any):
        self.folder = out.with_name(out.name + ".parts")
        self._run = RunDirectory(self.folder, options, free=(*FREE, "threads"))
        self._files: Mapping[str, str] = {}

    def bind(self, files: Mapping[str, str], images: Mapping[str, ImageSet]) -> None:
        """Tie the parts to the fingerprints of files and to images; ``ValueError`` if these have changed."""
        self._run.bind(**images)
        self._files = files
        if self._chosen.exists():
            self._load_masks()

    @property
    def _chosen(self) -> Path:
        return self.folder / "masks.safetensors"

    def _load_masks(self) -> Tensor:
        tensors, before = load_weights(self._chosen)
        changed = [name for name, value in self._files.items() if before.get(name) != value]
        if changed:
            raise ValueError(
                f"out: {self.folder} was begun with another {', '.join(changed)}; choose another file"
            )
        return tensors["masks"]

    def masks(self, choose: Callable[[], Tensor]) -> Tensor:
        """The masks ``(K, num_cells, num_modules)``, which ``choose`` gives in the first call."""
        if not self._chosen.exists():
            masks = choose()
            self._run.claim()
            save_weights(self._chosen, {"masks": masks}, dict(self._files))
        return self._load_masks()

    def answers(self, folded: MetaGraph, images: ImageSet, masks: Tensor, split: str) -> Tensor:
        """Which masks get which images right, uint8 ``(N, ceil(K / 8))``; what is known is read."""
        blocks, columns = masks.split(BLOCK), []
        for number, block in enumerate(track(blocks, f"tabulating {split}")):
            file = self.folder / f"{split}.{number:03}.safetensors"
            if not file.exists():
                bits = pack(torch.stack(list(answers(folded, images, block)), 1))
                save_weights(file, {"correct": bits}, {})
            columns.append(load_weights(file)[0]["correct"])
        return torch.cat(columns, 1)

    def remove(self) -> None:
        """Delete the folder, last what says whose it is: a kill on the way leaves what can be resumed."""
        for file in self.folder.glob("*.safetensors"):
            file.unlink()
        shutil.rmtree(self.folder)
