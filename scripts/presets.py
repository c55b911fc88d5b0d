"""Presets of the whole experiment: the paper's four data sets, a laptop, and a tiny one for trying it out.

A preset holds the options of every stage's script; what is not written here is that script's default.
The paper's numbers are in ``instanas_env/paper.py``, STATED apart from CHOSEN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from instanas_env import paper
from instanas_env.data import Augmentation
from scripts.benchmark import Options as Benchmark
from scripts.choose import Options as Choose
from scripts.evaluate import Options as Evaluate
from scripts.finetune import Options as Finetune
from scripts.menu import Options as Menu
from scripts.pretrain import Options as Pretrain
from scripts.profile_latency import Options as ProfileLatency
from scripts.search import AgentName
from scripts.search import Options as Search

HERE = Path("set by the experiment")
"""Stands for every path that scripts.experiment chooses in the directory of its run."""


@dataclass(frozen=True)
class Preset:
    """The experiment's numbers."""

    dataset: str
    """Data set, see instanas_env.data.load_images."""
    search_space: str
    """Preset of the space, with a width after an @ if it is not 1: "lite@2"."""
    classes: int
    """Of the data set."""
    images: tuple[int, int, int]
    """How many for training, validation and testing; only the estimate of a dry run needs it."""
    agents: tuple[AgentName, ...]
    """Each searches once, on its own copy of the meta-graph."""
    fine_tuned: tuple[str, ...]
    """Whose meta-graph is fine-tuned: "regression" with its dial turning, "reinforce/A" under a pick of its
    search (A to E, accuracy, balanced or latency; see scripts.choose)."""
    distilled: bool = False
    """Fine-tuning also imitates MobileNetV2 trained alone."""
    explored: tuple[float, float] = (0.3, 0.9)
    """Regression: mean latencies between which its search explores, in multiples of MobileNetV2's."""
    dial: float = 0.45
    """Regression: mean latency of the policy that its search validates, in the same unit."""
    tuned: tuple[float, float] = (0.3, 0.65)
    """Regression: mean latencies between which lambda is drawn in fine-tuning, in the same unit."""
    pretrain: Pretrain = Pretrain(HERE)
    mobilenet_v2: Pretrain = Pretrain(HERE)
    """MobileNetV2 alone: what the paper compares with, and the teacher."""
    profile_latency: ProfileLatency = ProfileLatency(HERE)
    regression: Search = Search(HERE)
    reinforce: Search = Search(HERE)
    blockdrop: Search = Search(HERE)
    convnet_aig: Search = Search(HERE)
    choose: Choose = Choose(HERE)
    finetune: Finetune = Finetune(HERE, HERE)
    variations: Menu | None = None
    """A menu around the network that REINFORCE ended with, for the regression controller to choose from: the
    meta-graph is fine-tuned for all of it, controllers learn and are compared with fixed masks (benchmark),
    and the meta-graph is fine-tuned under the first of them. None leaves all this out."""
    variations_finetune: Finetune = Finetune(HERE, HERE)
    benchmark: Benchmark = Benchmark(HERE)
    evaluate: Evaluate = Evaluate(HERE)
    """Networks given as ``alone`` are compared besides this run's MobileNetV2."""


def paper_preset(dataset: str, search_space: str, classes: int, images: tuple[int, int, int]) -> Preset:
    """The paper's experiment on one of its data sets (section 4.2; the same hyperparameters on all)."""
    training = Pretrain(
        HERE,
        epochs=paper.PRETRAIN_EPOCHS,
        batch_size=paper.PRETRAIN_BATCH_SIZE,
        learning_rate=paper.PRETRAIN_LEARNING_RATE,
        schedule="paper",
        augmentation=Augmentation(),
    )
    searching = Search(
        HERE,
        epochs=paper.SEARCH_EPOCHS,
        num_envs=paper.SEARCH_BATCH_SIZE,
        learning_rate=paper.CONTROLLER_LEARNING_RATE,
        samples_per_image=paper.SAMPLES_PER_IMAGE,
        log_probability_under="p",
    )
    return Preset(
        dataset=dataset,
        search_space=search_space,
        classes=classes,
        images=images,
        agents=("reinforce",),
        fine_tuned=tuple(f"reinforce/{letter}" for letter in "ABCDE"),
        pretrain=training,
        mobilenet_v2=training,
        regression=searching,
        reinforce=searching,
        finetune=Finetune(
            HERE,
            HERE,
            epochs=paper.FINETUNE_EPOCHS,
            batch_size=paper.FINETUNE_BATCH_SIZE,
            learning_rate=paper.FINETUNE_LEARNING_RATE,
            optimizer="adam",
            from_scratch=True,
            augmentation=Augmentation(),
        ),
        evaluate=Evaluate(HERE, one_shot_masks=paper.ONE_SHOT_MASKS),
    )


def imagenet() -> Preset:
    """On ImageNet the released code searches for fewer epochs, with more images a step."""
    preset = paper_preset("imagenet", "imagenet", 1000, (1_153_051, 128_116, 50_000))
    searching = replace(
        preset.reinforce, epochs=paper.SEARCH_EPOCHS_IMAGENET, num_envs=paper.SEARCH_BATCH_SIZE_IMAGENET
    )
    return replace(preset, regression=searching, reinforce=searching)


def laptop_cifar10() -> Preset:
    """CIFAR-10 as a folder, in hours on two CPU cores: half the width, a stride-2 stem, short stages."""
    training = Pretrain(
        HERE, epochs=20, batch_size=128, augmentation=Augmentation(crop_padding=4 / 32, cutout=0.0)
    )
    searching = Search(HERE, epochs=5, meta_graph_learning_rate=0.05)
    return Preset(
        dataset="folder",
        search_space="lite@2",
        classes=10,
        images=(45_000, 5_000, 10_000),
        agents=("regression", "reinforce"),
        fine_tuned=("regression", "reinforce/balanced"),
        distilled=True,
        pretrain=training,
        mobilenet_v2=training,
        regression=replace(searching, frozen_epochs=1),
        reinforce=searching,
        finetune=Finetune(HERE, HERE, epochs=6, learning_rate=0.08, augmentation=training.augmentation),
        variations=Menu(HERE, HERE),
        variations_finetune=Finetune(
            HERE, HERE, epochs=12, learning_rate=0.08, augmentation=training.augmentation
        ),
        benchmark=Benchmark(
            HERE,
            total_timesteps=540_000,
            one_shot_masks=60,
            one_shot_images=5_000,
            one_shot_latency=(0.4, 1.0),
            dial=(0.5, 0.55, 0.6, 0.65),
        ),
        evaluate=Evaluate(HERE, dial=(0.5, 0.55, 0.6, 0.65), one_shot_masks=100, control_masks=40),
    )


def embedded() -> Preset:
    """Everything once, from nothing, on the embedded images: minutes; to see it work, not for its numbers."""
    training = Pretrain(HERE, epochs=2)
    searching = Search(HERE, epochs=2)
    return Preset(
        dataset="embedded",
        search_space="lite",
        classes=10,
        images=(4_000, 1_000, 1_000),
        agents=("regression", "reinforce"),
        fine_tuned=("regression", "reinforce/balanced"),
        distilled=True,
        pretrain=training,
        mobilenet_v2=training,
        profile_latency=ProfileLatency(
            HERE, repetitions=20, calibration_children=5, children=10, child_repetitions=5
        ),
        regression=replace(searching, frozen_epochs=1),
        reinforce=searching,
        choose=Choose(HERE, dials=6),
        finetune=Finetune(HERE, HERE, epochs=1),
        variations=Menu(HERE, HERE, size=6),
        variations_finetune=Finetune(HERE, HERE, epochs=1),
        benchmark=Benchmark(
            HERE,
            seeds=2,
            total_timesteps=8_000,
            menu=6,
            dial=(0.6, 1.0),
            one_shot_masks=10,
            one_shot_images=500,
        ),
        evaluate=Evaluate(
            HERE, dial=(0.4, 0.6), one_shot_masks=20, control_masks=10, control_networks=4, time_real=False
        ),
    )


PRESETS: dict[str, Preset] = {
    "paper-cifar10": paper_preset("cifar10", "cifar", 10, (45_000, 5_000, 10_000)),
    "paper-cifar100": paper_preset("cifar100", "cifar", 100, (45_000, 5_000, 10_000)),
    "paper-tiny-imagenet": paper_preset("tiny_imagenet", "tiny_imagenet", 200, (90_000, 10_000, 10_000)),
    "paper-imagenet": imagenet(),
    "laptop-cifar10": laptop_cifar10(),
    "embedded": embedded(),
}
