"""Inference (section 3.1): the controller looks at an image, then only the modules it chose run.

    classifier = InstaNASClassifier.load("runs/finetuned", load_images("embedded", "test"))
    classifier(image).name, classifier(image).latency_ms

A batch goes through the meta-graph, each module for the images that chose it; a single image through the
network of its mask, as a device would run it. Networks are kept, so that a mask met again costs nothing.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.agent import Agent
from agents.choices import Pick, controller_file
from agents.files import load_agent
from instanas_env.build import shipped
from instanas_env.data import ImageSet
from instanas_env.latency import LatencyTable
from instanas_env.meta_graph import Child, MetaGraph
from instanas_env.modules import fold_batch_norm
from instanas_env.storage import PathLike
from instanas_env.timing import one_thread, time_interleaved


@dataclass(frozen=True)
class Classification:
    """What a classifier says of one image; of a batch with the dimension B in front.

    Attributes:
        label: the most probable class, int; int64 ``(B,)``.
        name: its name; a tuple of B names.
        probabilities: float32 ``(num_classes,)``; ``(B, num_classes)``.
        mask: the modules that ran, bool ``(num_cells, num_modules)``, repaired; ``(B, ...)``.
        latency_ms: of these by the table, the controller's included, float; float64 ``(B,)``.
    """

    label: int | np.ndarray
    name: str | tuple[str, ...]
    probabilities: np.ndarray
    mask: np.ndarray
    latency_ms: float | np.ndarray


class InstaNASClassifier:
    """A trained controller and its meta-graph, deployed: images in, classes out.

    Both are copied with BatchNorm folded; training or dialling the originals later changes nothing here.

    Args:
        agent: chooses the masks, deterministically; its controller's time counts if it has one.
        meta_graph: on the device that is to compute.
        image_set: any split, even an empty one, of the data set that both were trained on: its mean, std
            and class names are used, its images are not.
        latency_table: of the same search space.
        cache_size: networks kept for single images, the least recently used goes first. They share the
            meta-graph's weights.

    Raises:
        ValueError: parts that do not belong together, or a cache without room for one network.
    """

    def __init__(
        self,
        agent: Agent,
        meta_graph: MetaGraph,
        image_set: ImageSet,
        latency_table: LatencyTable,
        cache_size: int = 64,
    ):
        space = meta_graph.space
        for name, other in (("agent", agent.space), ("latency_table", latency_table.space)):
            if other != space:
                raise ValueError(f"{name}: made for {other.config}; got a meta-graph of {space.config}")
        if len(image_set.classes) != meta_graph.num_classes:
            raise ValueError(
                f"image_set: has {len(image_set.classes)} classes, the meta-graph {meta_graph.num_classes}"
            )
        if cache_size < 1:
            raise ValueError(f"cache_size: got {cache_size}; at least 1 will do")
        self.space = space
        self.classes = image_set.classes
        self.latency_table = latency_table
        self._statistics = image_set.take(torch.arange(0))
        self._controller_ms = 0.0 if agent.controller is None else latency_table.controller
        self._network = meta_graph.folded()
        self._device = next(self._network.parameters()).device
        self._agent = copy.copy(agent)
        if agent.controller is not None:
            self._agent.controller = fold_batch_norm(agent.controller)
        self._child_of = lru_cache(cache_size)(self._build_child)

    @classmethod
    def load(
        cls,
        folder: PathLike,
        image_set: ImageSet,
        latency_table: PathLike | None = None,
        device: str = "cpu",
        cache_size: int = 64,
        prefer: Pick | None = None,
    ) -> InstaNASClassifier:
        """Read what ``scripts.search`` or ``scripts.finetune`` left in ``folder``.

        A run records the name of its data set but neither its statistics nor where it lies, hence
        ``image_set``. The table is the shipped one by default. ``prefer`` means one of the trade-offs
        that ``scripts.choose`` picked from a search: "accuracy", "balanced", "latency", or its letter.
        """
        folder = Path(folder)
        return cls(
            load_agent(controller_file(folder, prefer)),
            MetaGraph.load(folder / "meta_graph.safetensors").to(device),
            image_set,
            LatencyTable.load(shipped("latency.json") if latency_table is None else latency_table),
            cache_size,
        )

    @torch.inference_mode()
    def __call__(self, images: Any) -> Classification:
        """Classify one image, uint8 ``(3, H, W)``, or a batch ``(B, 3, H, W)``; tensor or array.

        Raises:
            ValueError: another type or shape, or an empty batch.
        """
        batch, single = self._batch(images)
        masks = self._choose(batch)
        if single:
            logits = self._child(masks[0])(self._normalize(batch))
        else:
            logits = self._network(self._normalize(batch), masks)
        probabilities = logits.softmax(1).cpu().numpy()
        labels = probabilities.argmax(1)
        latency_ms = (self.latency_table.lookup(masks) + self._controller_ms).numpy()
        names = tuple(self.classes[label] for label in labels)
        if single:
            return Classification(
                int(labels[0]), names[0], probabilities[0], masks[0].numpy(), float(latency_ms[0])
            )
        return Classification(labels, names, probabilities, masks.numpy(), latency_ms)

    def measure(self, images: Any, repetitions: int = 20) -> np.ndarray | float:
        """Measured milliseconds of classifying each image by itself: controller, choice, network.

        One thread, median of ``repetitions`` in interleaved random order. The networks are built
        beforehand; whoever has more masks than ``cache_size`` pays for building besides.

        Args:
            images: as for :meth:`__call__`.
            repetitions: at least 1.

        Returns:
            float64 ``(B,)``, or a float for one image.
        """
        if repetitions < 1:
            raise ValueError(f"repetitions: got {repetitions}; at least 1 will do")
        batch, single = self._batch(images)

        def whole(image: Tensor, child: Child) -> Tensor:
            self._choose(image)
            return child(self._normalize(image))

        with one_thread():
            children = [self._child(mask) for mask in self._choose(batch)]
            calls = [
                lambda image=image, child=child: whole(image, child)  # type: ignore[misc]
                for image, child in zip(batch.split(1), children, strict=True)
            ]
            generator = torch.Generator().manual_seed(0)
            times = time_interleaved(calls, repetitions, generator, self._device).median(1).values.numpy()
        return float(times[0]) if single else times

    def dial(self, latency_ms: float, images: Any) -> float:
        """Let the networks of ``images`` take ``latency_ms`` on average, the controller's time not counted.

        Gives the agent's new lambda; see :meth:`agents.reward_regression.RewardRegression.dial`.

        Raises:
            ValueError: the agent has no dial.
        """
        dial = getattr(self._agent, "dial", None)
        if dial is None:
            raise ValueError(f"dial: {type(self._agent).__name__} has none; RewardRegression will do")
        return dial(self._batch(images)[0], latency_ms)

    def cached(self) -> int:
        """Number of networks that are kept at present."""
        return self._child_of.cache_info().currsize

    # --- inside ----------------------------------------------------------------------------------

    def _batch(self, images: Any) -> tuple[Tensor, bool]:
        """Images uint8 ``(B, 3, H, W)`` on the CPU, and whether it was a single one."""
        side = self.space.resolution
        will_do = f"a uint8 tensor or array (3, {side}, {side}) or (B, 3, {side}, {side}) will do"
        if not isinstance(images, (Tensor, np.ndarray)):
            raise ValueError(f"images: got {type(images).__name__}; {will_do}")
        shape = tuple(images.shape)
        uint8 = images.dtype in (torch.uint8, np.dtype(np.uint8))
        if not uint8 or len(shape) not in (3, 4) or shape[-3:] != (3, side, side) or shape[0] == 0:
            raise ValueError(f"images: got {images.dtype} {shape}; {will_do}")
        batch = images.cpu() if isinstance(images, Tensor) else torch.from_numpy(images.copy())
        return (batch, False) if batch.ndim == 4 else (batch.unsqueeze(0), True)

    def _choose(self, batch: Tensor) -> Tensor:
        """Repaired masks ``(B, num_cells, num_modules)`` on the CPU."""
        return self.space.repair(self._agent.masks(batch)).cpu()

    def _normalize(self, batch: Tensor) -> Tensor:
        return self._statistics.normalize(batch.to(self._device))

    def _child(self, mask: Tensor) -> Child:
        return self._child_of(mask.numpy().tobytes())

    def _build_child(self, mask: bytes) -> Child:
        shape = (self.space.num_cells, self.space.num_modules)
        return self._network.child(torch.frombuffer(bytearray(mask), dtype=torch.bool).view(shape))
