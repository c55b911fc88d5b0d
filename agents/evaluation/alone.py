"""Networks trained alone, which every image goes through: what a comparison sets the controllers against.

MobileNetV2 of any width (`instanas pretrain --modules 2 --search-space lite@0.5`), ShuffleNetV2 and ResNet
(`instanas baseline`).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from agents.evaluation.scores import BATCH_SIZE
from instanas_env.bandit import InstanceBandit
from instanas_env.data import ImageSet
from instanas_env.deploy.profiling import random_children
from instanas_env.deploy.timing import time_networks
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.networks.torchvision_networks import NETWORK, TorchvisionNetwork
from instanas_env.search_space import MOBILENET_V2_BLOCK, SearchSpace
from instanas_env.storage import load_config
from instanas_env.training.epoch import predict_classes
from instanas_env.training.matching import META_GRAPH

REPETITIONS = 200
OTHERS = 50
"""Random children among which networks are timed."""


@dataclass(frozen=True)
class LoneNetwork:
    """A trained network as it is deployed.

    Attributes:
        name: of its row, such as "MobileNetV2 x 0.5".
        family: networks of one family make a line in the figures.
        network: normalised images ``(B, 3, H, W)`` to logits, BatchNorm folded.
        resolution: of its images, px.
        classes: number of logits.
        space: the search space it is the MobileNetV2 of, if it is one.
        file: where its weights were read.
    """

    name: str
    family: str
    network: nn.Module
    resolution: int
    classes: int
    space: SearchSpace | None = None
    file: Path | None = None

    @property
    def parameters(self) -> int:
        """How many there are, BatchNorm folded."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def mmacs(self) -> float:
        """Millions of multiply-accumulates for one image."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.network(torch.zeros(1, 3, self.resolution, self.resolution))
        return counter.get_total_flops() / 2e6  # it counts the multiplication and the addition

    @torch.inference_mode()
    def losses(self, image_set: ImageSet, device: torch.device | None = None) -> Tensor:
        """Cross-entropy of each image of a set, ``(N,)``: how hard it is; computed on ``device``."""
        network, parts = copy.deepcopy(self.network).to(device), []
        for index in torch.arange(len(image_set)).split(BATCH_SIZE):
            logits = network(image_set.normalize(image_set.images[index].to(device))).cpu()
            parts.append(F.cross_entropy(logits, image_set.labels[index], reduction="none"))
        return torch.cat(parts)

    def correct(self, image_set: ImageSet, device: torch.device | None = None) -> Tensor:
        """Which images of a set it gets right, bool ``(N,)``; computed on ``device``, by default the CPU."""
        network, nothing = copy.deepcopy(self.network).to(device), torch.ones(1, 1, dtype=torch.bool)
        return predict_classes(network, image_set, nothing) == image_set.labels


def load_lone(path: Path) -> LoneNetwork:
    """The network of a weights file, or of the run directory that holds one."""
    file = path
    if path.is_dir():
        file = path / (NETWORK if (path / NETWORK).is_file() else META_GRAPH)
    return _of_torchvision(file) if "network" in load_config(file) else _mobilenet_v2(file)


def _of_torchvision(file: Path) -> LoneNetwork:
    network = TorchvisionNetwork.load(file)
    architecture = network.architecture
    return LoneNetwork(
        name=architecture.name,
        family=architecture.family,
        network=network.folded(),
        resolution=architecture.resolution,
        classes=network.num_classes,
        file=file,
    )


def _mobilenet_v2(file: Path) -> LoneNetwork:
    meta_graph = MetaGraph.load(file)
    space = meta_graph.space
    if space.modules != (MOBILENET_V2_BLOCK,):
        raise ValueError(
            f"alone: {file} holds {space.config}; one of `instanas pretrain --modules 2, or of"
            " `instanas baseline`, will do"
        )
    return LoneNetwork(
        name=f"MobileNetV2 x {space.width:g}",
        family="MobileNetV2 alone",
        network=meta_graph.child(space.full_mask()),
        resolution=space.resolution,
        classes=meta_graph.num_classes,
        space=space,
        file=file,
    )


def load_all(paths: Sequence[Path], space: SearchSpace, num_classes: int) -> list[LoneNetwork]:
    """The networks of ``paths``; MobileNetV2 of ``space`` itself, to which others are compared, first.

    Raises:
        ValueError: a file of another kind, or a network for images of another size or for other classes.
    """
    networks = [load_lone(path) for path in paths]
    for path, network in zip(paths, networks, strict=True):
        if network.resolution != space.resolution:
            raise ValueError(
                f"alone: {path} is for {network.resolution} px; the search space has {space.resolution} px"
            )
        if network.classes != num_classes:
            raise ValueError(f"alone: {path} has {network.classes} classes; the data set has {num_classes}")
    count = Counter(network.name for network in networks)
    named = [
        network if count[network.name] == 1 else replace(network, name=f"{network.name} ({name})")
        for name, network in zip(short_names(paths), networks, strict=True)
    ]
    return sorted(named, key=lambda network: not is_of(network, space))


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path where that tells it from the others, else the whole path."""
    count = Counter(path.name for path in paths)
    return [path.name if count[path.name] == 1 else str(path) for path in paths]


def is_of(network: LoneNetwork, space: SearchSpace) -> bool:
    """Whether it is the MobileNetV2 of ``space``, so that the space's table tells its latency."""
    return (
        network.space is not None
        and MOBILENET_V2_BLOCK in space.modules
        and network.space == space.only(space.modules.index(MOBILENET_V2_BLOCK))
    )


def latencies(
    networks: Sequence[LoneNetwork],
    bandit: InstanceBandit,
    generator: torch.Generator,
    repetitions: int = REPETITIONS,
) -> list[tuple[float, dict[str, Any]]]:
    """Latency in ms of each network, on the scale of the bandit's table, and where it comes from.

    The MobileNetV2 of the bandit's space has that of the table. Others are not in the table, and what a
    clock says today is not what it said when the table was measured. So they are timed (batch 1, one
    thread) in turns with that MobileNetV2 and :data:`OTHERS`, and take its latency in the table times the
    ratio of the two.
    """
    space = bandit.space
    reference_ms = bandit.latency_table.reference("mobilenet_v2")
    measured = [network for network in networks if not is_of(network, space)]
    ratios: dict[int, tuple[float, dict[str, Any]]] = {}
    if measured:
        child = bandit.meta_graph.child(space.mobilenet_v2_mask()).cpu()  # as it is deployed
        # Among others, as the table's networks were: by itself a network finds its weights in the caches.
        folded, masks = bandit.meta_graph.folded().cpu(), random_children(space, OTHERS, generator)
        others = [folded.child(mask) for mask in masks]
        timed = [child, *(network.network for network in measured), *others]
        clock, *own = time_networks(timed, space.resolution, generator, repetitions).tolist()
        for network, ms in zip(measured, own, strict=False):
            source = {"latency_from": "clock", "measured_ms": ms, "measured_mobilenet_v2_ms": clock}
            ratios[id(network)] = (reference_ms * ms / clock, source)
    in_table = (reference_ms, {"latency_from": "table"})
    return [ratios.get(id(network), in_table) for network in networks]
