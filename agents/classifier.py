"""Inference (section 3.1): the controller looks at an image, then only the modules it chose run.

    classifier = InstaNASClassifier.load("runs/finetuned")
    classifier("cat.png").name, classifier("cat.png").latency_ms

A single image runs in onnxruntime, as a device would run it, see :mod:`agents.singles`. The masks of a
batch are chosen there too; it then goes through the meta-graph in PyTorch, each module for the images that
chose it.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.agent import NETWORK, Agent
from agents.early_exit import EarlyExit
from agents.evaluation.picks import Pick
from agents.pictures import as_batch
from agents.saved import check_same_classes, load_run
from agents.singles import SingleImages
from instanas_env import checks
from instanas_env.build import parse_device
from instanas_env.data import DataRecord, ImageSet
from instanas_env.deploy.timing import time_interleaved
from instanas_env.latency import LatencyTable
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.networks.modules import fold_batch_norm
from instanas_env.storage import PathLike


@dataclass(frozen=True)
class Classification:
    """What a classifier says of one image; of a batch with the dimension B in front.

    Attributes:
        label: the most probable class, int; int64 ``(B,)``.
        name: its name; a tuple of B names.
        probabilities: float32 ``(num_classes,)``; ``(B, num_classes)``.
        mask: the modules that ran, bool ``(num_cells, num_modules)``, repaired; ``(B, ...)``. Empty where the
            controller answered itself (early exit).
        latency_ms: of these by the table, the controller's included, float; float64 ``(B,)``.
    """

    label: int | np.ndarray
    name: str | tuple[str, ...]
    probabilities: np.ndarray
    mask: np.ndarray
    latency_ms: float | np.ndarray


class InstaNASClassifier:
    """A trained controller and its meta-graph, deployed: images in, classes out.

    Both are copied; training or dialling the originals later changes nothing here. It can be pickled.

    Args:
        agent: chooses the masks, deterministically; its controller's time counts if it has one.
        meta_graph: on the device that is to compute; on a GPU single images are batches of one.
        data: of the images that both were trained on, such as ``image_set.record``.
        latency_table: of the same search space.
        cache_size: networks kept for single images, the least recently used goes first.

    Raises:
        ValueError: parts that do not belong together, or a cache without room for one network.
    """

    def __init__(
        self,
        agent: Agent,
        meta_graph: MetaGraph,
        data: DataRecord,
        latency_table: LatencyTable,
        cache_size: int = 64,
    ):
        space = meta_graph.space
        space.expect(agent=agent.space, latency_table=latency_table.space)
        if len(data.classes) != meta_graph.num_classes:
            raise ValueError(
                f"data: has {len(data.classes)} classes, the meta-graph {meta_graph.num_classes}"
            )
        if agent.may_answer and agent.num_classes != len(data.classes):
            raise ValueError(f"agent: names {agent.num_classes} classes; {len(data.classes)} will do")
        if latency_table.unit != "ms":
            raise ValueError(f"latency_table: got one of {latency_table.unit}; one of ms will do")
        checks.whole("cache_size", cache_size, 1)
        self.space = space
        self.classes = data.classes
        self.latency_table = latency_table
        self._record = data
        self._controller_ms = 0.0 if agent.controller is None else latency_table.controller
        self._network = meta_graph.folded()
        self._device = next(self._network.parameters()).device
        self._agent = _for_inference(agent)
        network = self._network.cpu() if self._device.type == "cpu" else meta_graph.folded().cpu()
        self._singles = SingleImages(
            self._agent, network, data, latency_table, self._controller_ms, cache_size
        )

    @classmethod
    def load(
        cls,
        folder: PathLike,
        image_set: ImageSet | None = None,
        latency_table: PathLike | None = None,
        device: str = "cpu",
        cache_size: int = 64,
        prefer: Pick | None = None,
    ) -> InstaNASClassifier:
        """Read a run's folder, see :func:`agents.saved.load_run`.

        Args:
            folder: of the run; it knows its classes, mean, deviation and latency table.
            image_set: images that are to be classified; one with other classes is refused.
            latency_table: file of another table than the run's.
            device: that is to compute.
            cache_size: see the class.
            prefer: one of the trade-offs that `instanas choose` picked from a search: "accuracy",
                "balanced", "latency", or its letter.

        Raises:
            FileNotFoundError: a file of the run is not there.
            ValueError: a file of another kind, or images with other classes.
        """
        run = load_run(folder, prefer, latency_table)
        if image_set is not None:
            check_same_classes(run.data.classes, image_set.classes)
        return cls(run.agent, run.meta_graph.to(parse_device(device)), run.data, run.table, cache_size)

    @torch.inference_mode()
    def __call__(self, images: Any) -> Classification:
        """Classify one image or a batch.

        Args:
            images: array or tensor ``(3, H, W)`` or ``(B, 3, H, W)`` of 0 to 255, or channels last, of the
                search space's size; or a PIL image or the path of one, which is converted to RGB and resized.

        Raises:
            ValueError: another type or shape, or an empty batch.
        """
        batch, single = as_batch(images, self.space.resolution)
        if single and self._device.type == "cpu":
            array, mask = self._singles(batch)
            logits, masks = torch.from_numpy(array), torch.from_numpy(mask)
        else:
            masks, logits = self._whole(batch)
        probabilities = logits.softmax(1).cpu().numpy()
        labels = probabilities.argmax(1)
        ran = masks.flatten(1).any(1)
        latency_ms = (ran * self.latency_table.lookup(masks) + self._controller_ms).numpy()
        names = tuple(self.classes[label] for label in labels)
        chosen = masks.numpy()
        if single:
            return Classification(int(labels[0]), names[0], probabilities[0], chosen[0], float(latency_ms[0]))
        return Classification(labels, names, probabilities, chosen, latency_ms)

    def measure(self, images: Any, repetitions: int = 20) -> np.ndarray | float:
        """Measured milliseconds of classifying each image by itself: controller, choice, network.

        One thread, median of ``repetitions`` in interleaved random order. The networks are built
        beforehand, static ones; all are kept while this runs.

        Args:
            images: as for :meth:`__call__`.
            repetitions: at least 1.

        Returns:
            float64 ``(B,)``, or a float for one image.
        """
        checks.whole("repetitions", repetitions, 1)
        batch, single = as_batch(images, self.space.resolution)

        def call(image: Tensor) -> Callable[[], object]:
            """What is timed: an image's mask is chosen, and its network runs."""
            if self._device.type != "cpu":
                return lambda: self._whole(image)
            mask = self._singles.choose(image)
            if not mask.any():
                return lambda: self._singles.choose(image)
            child = self._singles.child(mask)
            return lambda: (self._singles.choose(image), child(image.numpy()))

        with torch.inference_mode():
            calls = [call(image) for image in batch.split(1)]
            generator = torch.Generator().manual_seed(0)
            times = time_interleaved(calls, repetitions, generator, self._device).median(1).values.numpy()
        return float(times[0]) if single else times

    def dial(self, images: Any, latency_ms: float) -> float:
        """Let the networks of ``images`` take ``latency_ms`` on average, the controller's time not counted.

        Gives the agent's new lambda; see :meth:`agents.reward_regression.RewardRegression.dial`. With early
        exits only the networks count that run.

        Raises:
            ValueError: the agent has no dial.
        """
        trade_off = self._agent.dial(as_batch(images, self.space.resolution)[0], latency_ms)
        self._singles.forget()
        return trade_off

    def __reduce__(self) -> tuple[Any, ...]:
        # Bytes, not tensors: those PyTorch would hand to a worker process one by one, as shared memory.
        return _unpickled, (pickle.dumps(self.__dict__),)

    def _whole(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Masks ``(B, num_cells, num_modules)`` and logits ``(B, C)`` on the CPU, through the meta-graph."""
        masks, logits = self._decide(batch)
        if len(run := masks.flatten(1).any(1).nonzero().flatten()):
            logits[run] = self._network(self._normalize(batch[run]), masks[run]).cpu()
        return masks, logits

    def _decide(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Repaired masks ``(B, num_cells, num_modules)`` on the CPU, empty where the controller answers
        itself, and the logits ``(B, C)`` of its answers, 0 for other images.

        Image by image in onnxruntime where that is possible: PyTorch rounds otherwise, and where a bit is on
        the verge, as a dial leaves some, an image's network would depend on how it came.
        """
        logits = torch.zeros(len(batch), len(self.classes))
        if self._device.type == "cpu" and self._agent.has_onnx:
            masks = torch.empty(len(batch), *self.space.mask_shape, dtype=torch.bool)
            for position, image in enumerate(batch.split(1)):
                mask, own = self._singles.decide(image)
                masks[position] = torch.from_numpy(mask[0])
                if own is not None and not mask.any():
                    logits[position] = torch.from_numpy(own[0])
            return masks, logits
        masks = self.space.repair(self._agent.masks(batch)).cpu()
        if self._agent.may_answer:
            sure = (self._agent.own_answers(batch) != NETWORK).cpu()
            masks[sure] = False
            logits[sure] = self._agent.name_logits(batch).cpu()[sure]
        return masks, logits

    def _normalize(self, batch: Tensor) -> Tensor:
        return self._record.normalize(batch.to(self._device))


def _unpickled(state: bytes) -> InstaNASClassifier:
    classifier = InstaNASClassifier.__new__(InstaNASClassifier)
    classifier.__dict__.update(pickle.loads(state))
    return classifier


def _for_inference(agent: Agent) -> Agent:
    """A copy of an agent without what only learning needs: environment, optimizer, memory."""
    alone = copy.copy(agent)
    if isinstance(alone, EarlyExit):
        alone.agent = _for_inference(alone.agent)  # type: ignore[assignment]
        return alone
    for name in ("env", "optimizer", "_memory"):
        if hasattr(alone, name):
            setattr(alone, name, None)
    if agent.controller is not None:
        alone.controller = fold_batch_norm(copy.deepcopy(agent.controller))  # buffers too are its own
    return alone
