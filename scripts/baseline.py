"""Train ShuffleNetV2 or ResNet of torchvision as `instanas pretrain` trains MobileNetV2 alone.

    instanas baseline --out runs/resnet18 --network resnet18 --width 0.25
    instanas evaluate --out runs/evaluation --alone runs/resnet18

The same images, augmentation, optimizer and learning rates. Resumes where it was when called again with the
same options. Writes ``network.safetensors`` and ``history.jsonl``. Several processes share every batch under
torchrun, see instanas_env.training.distributed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from instanas_env.networks.torchvision_networks import NETWORK, Architecture, Network, TorchvisionNetwork
from instanas_env.seeding import generator_for
from instanas_env.training.distributed import ALONE, World
from instanas_env.training.epoch import predict_classes
from instanas_env.training.fitting import Recipe, fit
from instanas_env.training.run_directory import FREE, RunDirectory
from scripts.begin import begin, images_to_train
from scripts.options import Compute, Data, Folder, Training


@dataclass(frozen=True, kw_only=True)
class Numbers(Training):
    """What to train, and how; an experiment has these in its preset."""

    network: Network = "resnet18"
    """Which network of torchvision."""
    width: float = 1.0
    """Multiplies every channel count."""
    stem_stride: Literal[1, 2] = 2
    """Stride of the first convolution, 3x3; no max-pooling follows it."""
    resolution: int = 32
    """Size of the images, px."""


@dataclass(frozen=True, kw_only=True)
class Options(Numbers, Compute, Data, Folder):
    """What to train, on what, and how."""

    seed: int = 0


def main(options: Options, world: World = ALONE) -> None:
    """Train to the end, or from where an earlier call was stopped."""
    world = begin(options, world)
    architecture = Architecture(options.network, options.width, options.stem_stride, options.resolution)
    run = RunDirectory(options.out, options, free=FREE, world=world)
    train, val = images_to_train(options, options.resolution, run)
    network = TorchvisionNetwork(architecture, len(train.classes), generator_for(options.seed))

    nothing = torch.ones(1, 1, dtype=torch.bool)  # the mask of a network without a choice

    def evaluate() -> dict[str, float]:
        predictions = predict_classes(network.folded().to(world.device), val, nothing, world=world)
        return {"all": (predictions == val.labels).float().mean().item()}

    fit(
        network,
        train,
        lambda images, count, *_: nothing.expand(count, -1, -1),
        evaluate,
        network.save,
        run,
        Recipe.of(options),
        file=NETWORK,
    )
