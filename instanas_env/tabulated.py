"""A table of right and wrong answers, K masks x all images of some splits, and its file.

The file is safetensors with a checksum: "masks" uint8 ``(K, num_bits)``, "latency_ms" float64 ``(K,)`` and,
for each split, "correct.SPLIT" uint8 ``(N, ceil(K / 8))``: bit ``7 - k % 8`` of byte ``k // 8`` tells whether
mask k classifies the image correctly. Which class was answered instead is not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instanas_env import checks
from instanas_env.data import ImageSet
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.search_space import SearchSpace
from instanas_env.storage import PathLike, load_weights, save_weights
from instanas_env.training.epoch import predict_classes
from instanas_env.validation import json_object, mapping, number, record, text

MOST = 2**12
"""Masks of a table."""
REFERENCES = ("full", "mobilenet_v2", "cheapest")
_FIELDS = {
    "dataset": text(),
    "images": mapping(text()),
    "references": record({name: number(0) for name in REFERENCES}),
    "meta_graph": text(),
    "latency_table": text(),
    "record": json_object,
}
"""What of a :class:`Tabulated` is in the config of its file under the same name."""
_CONFIG = record({"tabulated": text("instanas"), "search_space": SearchSpace.from_config, **_FIELDS})


@dataclass(frozen=True)
class Tabulated:
    """Which masks classify which images correctly, and how long they take.

    Attributes:
        space: the search space.
        masks: bool ``(K, num_cells, num_modules)``, repaired.
        latency_ms: float64 ``(K,)``, as the latency table gives them.
        packed: uint8 ``(N, ceil(K / 8))`` of each split; see :meth:`correct`.
        images: the fingerprint of each split's images.
        dataset: their name for :func:`instanas_env.data.load_images`.
        references: ms of the reference networks, of which a window's bounds are multiples.
        meta_graph, latency_table: fingerprints of the files that the answers and latencies are from.
        record: how it was made.
    """

    space: SearchSpace
    masks: Tensor
    latency_ms: Tensor
    packed: Mapping[str, Tensor]
    images: dict[str, str]
    dataset: str
    references: dict[str, float]
    meta_graph: str
    latency_table: str
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.space.check_masks(self.masks)
        count = len(self.masks)
        if self.masks.ndim != 3 or not 1 <= count <= MOST:
            raise ValueError(f"masks: got shape {tuple(self.masks.shape)}; K masks, K 1 to {MOST}, will do")
        if not torch.equal(self.space.repair(self.masks), self.masks):
            raise ValueError("masks: got an empty cell that changes shape; repaired masks will do")
        latency = self.latency_ms
        fits = latency.dtype == torch.float64 and latency.shape == (count,)
        if not fits or not bool((torch.isfinite(latency) & (latency >= 0)).all()):
            raise ValueError(f"latency_ms: {count} finite float64 of at least 0 will do")
        if not self.packed or self.packed.keys() != self.images.keys():
            raise ValueError(f"images: got {sorted(self.images)} for {sorted(self.packed)}; the same will do")
        width, unused = -(-count // 8), 2 ** (-count % 8) - 1  # the last bits of a row's last byte
        for split, bits in self.packed.items():
            if bits.dtype != torch.uint8 or bits.shape[1:] != (width,) or not len(bits):
                got = f"{bits.dtype} {tuple(bits.shape)}"
                raise ValueError(f"correct.{split}: got {got}; torch.uint8 (N, {width}) will do")
            if (bits[:, -1] & unused).any():
                raise ValueError(f"correct.{split}: got bits of masks beyond the {count} that there are")

    def __len__(self) -> int:
        return len(self.masks)

    def reference(self, name: str) -> float:
        """ms of a reference network, as :meth:`instanas_env.latency.LatencyTable.reference` gives them."""
        if name not in self.references:
            raise ValueError(f"bounds: unknown reference {name!r}; choose from {', '.join(REFERENCES)}")
        return self.references[name]

    def correct(self, split: str) -> np.ndarray:
        """Whether mask k classifies image i correctly, bool ``(N, K)``; ``ValueError`` for another split."""
        if split not in self.packed:
            raise ValueError(f"split: unknown {split!r}; the table has {', '.join(self.packed)}")
        return np.unpackbits(self.packed[split].numpy(), axis=1, count=len(self)).astype(bool)

    def save(self, path: PathLike) -> None:
        """Write the table."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        config = {"tabulated": "instanas", "search_space": self.space.config, **fields}
        tensors = {
            "masks": self.masks.flatten(1).to(torch.uint8),
            "latency_ms": self.latency_ms,
            **{f"correct.{split}": bits for split, bits in self.packed.items()},
        }
        save_weights(path, tensors, config)

    @classmethod
    def load(cls, path: PathLike) -> Tabulated:
        """Read a table.

        Raises:
            FileNotFoundError: no such file.
            ValueError: damaged, or something else; the message names the file.
        """
        tensors, config = load_weights(path)
        with checks.explained(f"table: {path} is not a tabulated environment", KeyError):
            content = _CONFIG(config, "config")
            space = content["search_space"]
            bits = tensors["masks"]
            is_bits = bits.dtype == torch.uint8 and bits.ndim == 2 and bits.shape[1] == space.num_bits
            if not is_bits or (bits > 1).any():
                got = f"{bits.dtype} {tuple(bits.shape)}"
                raise ValueError(f"masks: got {got}; uint8 (K, {space.num_bits}) of 0 and 1 will do")
            return cls(
                space=space,
                masks=bits.bool().unflatten(1, space.mask_shape),
                latency_ms=tensors["latency_ms"],
                packed={split: tensors[f"correct.{split}"] for split in content["images"]},
                **{name: content[name] for name in _FIELDS},
            )


def pack(correct: Tensor) -> Tensor:
    """bool ``(N, K)`` to uint8 ``(N, ceil(K / 8))``."""
    return torch.from_numpy(np.packbits(correct.numpy(), axis=1))


def answers(folded: MetaGraph, image_set: ImageSet, masks: Tensor) -> Iterator[Tensor]:
    """For each of ``masks`` ``(K, num_cells, num_modules)`` which images it gets right, bool ``(N,)``."""
    for mask in masks:
        yield predict_classes(folded, image_set, mask) == image_set.labels


def reference_latencies(table: LatencyTable) -> dict[str, float]:
    """The latencies of the reference networks that a table of answers keeps, ms."""
    return {name: table.reference(name) for name in REFERENCES}
