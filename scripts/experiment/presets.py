"""Presets of the whole experiment: the paper's four data sets, a laptop, and a tiny one for trying it out.

A preset holds the numbers of every stage's verb; what is not written here is that verb's default. Where the
stages write, and which files of earlier ones they read, is said in plan.py; here only that regression chooses
from :data:`MENU`.
The paper's numbers are in ``instanas_env/paper.py``, STATED apart from CHOSEN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from agents.reinforce import PAPER_SETTINGS
from instanas_env import paper
from instanas_env.data import Augmentation
from scripts import oneshot
from scripts.baseline import Numbers as Baseline
from scripts.choose import Numbers as Choose
from scripts.evaluate import Numbers as Evaluate
from scripts.finetune import Numbers as Finetune
from scripts.oneshot import Numbers as OneShot
from scripts.pretrain import Numbers as Pretrain
from scripts.profile import Numbers as Profile
from scripts.search_options import BlockDropOptions, ConvNetAIGOptions, Regression, Reinforce
from scripts.search_options import Numbers as Search

ONE_SHOT = "one_shot"
"""The directory of the one-shot search in that of the run."""
MENU = Path(ONE_SHOT) / oneshot.MENU
"""The menu that it leaves."""

SearchName = Literal["reinforce", "blockdrop", "convnet-aig", "regression"]


@dataclass(frozen=True)
class Preset:
    """The experiment's numbers."""

    dataset: str
    """Data set, see instanas_env.data.load_images."""
    search_space: str
    """Preset of the space, with a width after an @ if it is not 1: "lite@2"."""
    classes: int
    """How many the data set has."""
    images: tuple[int, int, int]
    """How many for training, validation and testing; only the estimate of a dry run needs it."""
    agents: tuple[SearchName, ...]
    """Each searches on its own copy of the meta-graph."""
    fine_tuned: tuple[str, ...]
    """Whose meta-graph is fine-tuned: "regression" with its dial turning, "reinforce/A" under a pick of its
    search (A to E, accuracy, balanced or latency; see `instanas choose`)."""
    rivals: tuple[str, ...] = ()
    """Those of ``fine_tuned`` beside which the best mask for all images alike that is no slower is trained in
    the same way, alone; it is chosen by ``one_shot``."""
    early_exits: tuple[str, ...] = ()
    """Those of ``fine_tuned`` whose controller is also let answer what it is sure of, before its networks and
    before its rival; it must have learnt to name the images."""
    taught: bool = False
    """The meta-graph starts from MobileNetV2 trained alone, and imitates it."""
    seeds: int = 1
    """How often each search is made, with what is chosen and fine-tuned after it."""
    pretrain: Pretrain = Pretrain()
    mobilenet_v2: Pretrain = Pretrain()
    """MobileNetV2 alone: what the paper compares with."""
    widths: tuple[float, ...] = ()
    """MobileNetV2 alone is also trained at these multiples of the width."""
    resnet18: Baseline | None = None
    shufflenet_v2: Baseline | None = None
    profile: Profile = Profile()
    reinforce: Search = Search(Reinforce())
    regression: Search = Search(Regression())
    one_shot: OneShot = OneShot()
    """Masks for all images alike, ranked on the pre-trained meta-graph."""
    blockdrop: Search = Search(BlockDropOptions())
    convnet_aig: Search = Search(ConvNetAIGOptions())
    choose: Choose = Choose()
    finetune: Finetune = Finetune()
    evaluate: Evaluate = Evaluate()
    """Networks given as ``alone`` are compared besides this run's MobileNetV2."""


def paper_preset(
    dataset: str,
    search_space: str,
    classes: int,
    images: tuple[int, int, int],
    search_epochs: int = paper.SEARCH_EPOCHS,
    search_batch_size: int = paper.SEARCH_BATCH_SIZE,
) -> Preset:
    """The paper's experiment on one of its data sets (section 4.2; the same hyperparameters on all)."""
    training = Pretrain(
        epochs=paper.PRETRAIN_EPOCHS,
        batch_size=paper.PRETRAIN_BATCH_SIZE,
        schedule="paper",
        augmentation=Augmentation(),
    )
    return Preset(
        dataset=dataset,
        search_space=search_space,
        classes=classes,
        images=images,
        agents=("reinforce",),
        fine_tuned=tuple(f"reinforce/{letter}" for letter in "ABCDE"),
        rivals=tuple(f"reinforce/{letter}" for letter in "ABCDE"),
        pretrain=training,
        mobilenet_v2=training,
        reinforce=Search(
            Reinforce(**PAPER_SETTINGS),
            epochs=search_epochs,
            num_envs=search_batch_size,
            augmentation=Augmentation(),
        ),
        finetune=Finetune(
            epochs=paper.FINETUNE_EPOCHS,
            batch_size=paper.FINETUNE_BATCH_SIZE,
            learning_rate=paper.FINETUNE_LEARNING_RATE,
            optimizer="adam",
            from_scratch=True,
            augmentation=Augmentation(),
        ),
    )


def laptop_cifar10() -> Preset:
    """CIFAR-10 as a folder, on two CPU cores in a day: half the width, few epochs.

    Controllers learn most of what they know in frozen epochs, from weights that stand still: REINFORCE's two
    are 360,000 answers. The learning rate of the meta-graph is small then, as its weights have settled (0.05
    cost two points in one epoch).

    Regression needs one such epoch: the 12 masks of a menu for each image, and then forty passes over images
    and answers, cropped and flipped anew each time, before its controller sees enough to choose. A kill in
    that epoch, some 18 minutes, loses it.

    Its pick D takes about half of MobileNetV2's time. Masks much slower than MobileNetV2's path are not
    ranked: no rival needs them.

    What REINFORCE and regression find is trained on from their searches' weights, and so is the rival (on
    Fashion-MNIST a policy trained from scratch was worse than its search); BlockDrop and ConvNet-AIG are
    compared as their searches leave them.
    """
    augmentation = Augmentation(crop_padding=4 / 32, cutout=0.25)
    alone = Pretrain(epochs=16, augmentation=augmentation)
    torchvision = Baseline(epochs=alone.epochs, stem_stride=1, augmentation=augmentation)
    searching = Search(epochs=3, frozen_epochs=2, meta_graph_learning_rate=0.01)
    return Preset(
        dataset="folder",
        search_space="cifar@0.5",
        classes=10,
        images=(45_000, 5_000, 10_000),
        agents=("reinforce", "blockdrop", "convnet-aig", "regression"),
        fine_tuned=("reinforce/balanced", "regression/D"),
        rivals=("reinforce/balanced", "regression/D"),
        early_exits=("reinforce/balanced", "regression/D"),
        taught=True,
        pretrain=replace(alone, epochs=10, learning_rate=0.05),
        mobilenet_v2=alone,
        widths=(0.5, 0.75),
        resnet18=replace(torchvision, network="resnet18", width=0.25),
        shufflenet_v2=replace(torchvision, network="shufflenet_v2_x0_5", width=0.5),
        reinforce=searching,
        blockdrop=replace(searching, agent=BlockDropOptions()),
        convnet_aig=replace(  # keeps all modules, trains through them, and takes as long
            searching, agent=ConvNetAIGOptions(), num_envs=64, epochs=2, frozen_epochs=1
        ),
        regression=replace(
            searching,
            agent=Regression(
                latencies=(0.35, 1.0),
                menu=MENU,
                masks_per_image=12,
                replay=176,
                passes=40,
                augment=True,
            ),
            epochs=1,
            frozen_epochs=1,
        ),
        finetune=Finetune(epochs=4, learning_rate=0.05, augmentation=augmentation),
        one_shot=OneShot(masks=150, mutations=1050, images=500, slowest=1.1, finalists=60, menu=12, chunk=50),
        evaluate=Evaluate(control_masks=40, control_networks=12),
    )


def folder() -> Preset:
    """A folder of one's own (docs/images.md), however many images and classes: see as_found in run.py."""
    alone = Pretrain(learning_rate=0.05)
    return Preset(
        dataset="folder",
        search_space="lite",
        classes=0,
        images=(0, 0, 0),
        agents=("reinforce",),
        fine_tuned=("reinforce/balanced",),
        rivals=("reinforce/balanced",),
        early_exits=("reinforce/balanced",),
        taught=True,
        pretrain=alone,
        mobilenet_v2=alone,
        reinforce=Search(meta_graph_learning_rate=0.01),
        one_shot=OneShot(masks=200, images=250, finalists=30),
        evaluate=Evaluate(control_masks=20, time_real=False),
    )


def embedded() -> Preset:
    """Everything once, from nothing, on the embedded images: minutes; to see it work, not for its numbers."""
    training = Pretrain(epochs=2)
    return Preset(
        dataset="embedded",
        search_space="lite",
        classes=10,
        images=(4_000, 1_000, 1_000),
        agents=("reinforce", "blockdrop", "convnet-aig", "regression"),
        fine_tuned=("reinforce/balanced", "regression"),
        rivals=("reinforce/balanced",),
        early_exits=("reinforce/balanced",),
        pretrain=training,
        mobilenet_v2=training,
        widths=(0.5,),
        resnet18=Baseline(epochs=2, width=0.125),
        shufflenet_v2=Baseline(network="shufflenet_v2_x0_5", epochs=2, width=0.125),
        profile=Profile(fitted=150, children=10, repetitions=5),
        reinforce=Search(epochs=2),
        regression=Search(
            Regression(menu=MENU, masks_per_image=4, replay=16, passes=4, augment=True),
            epochs=2,
            frozen_epochs=1,
        ),
        blockdrop=Search(BlockDropOptions(), epochs=1),
        convnet_aig=Search(ConvNetAIGOptions(), epochs=1),
        choose=Choose(dials=6),
        finetune=Finetune(epochs=1),
        one_shot=OneShot(masks=60, mutations=40, images=200, finalists=15, chunk=20, menu=12),
        evaluate=Evaluate(dial=(0.4, 0.6), control_masks=10, control_networks=4, time_real=False),
    )


PRESETS: dict[str, Preset] = {
    "paper-cifar10": paper_preset("cifar10", "cifar", 10, (45_000, 5_000, 10_000)),
    "paper-cifar100": paper_preset("cifar100", "cifar", 100, (45_000, 5_000, 10_000)),
    "paper-tiny-imagenet": paper_preset("tiny_imagenet", "tiny_imagenet", 200, (90_000, 10_000, 10_000)),
    # There the released code searches for fewer epochs, with more images a step.
    "paper-imagenet": paper_preset(
        "imagenet",
        "imagenet",
        1000,
        (1_153_051, 128_116, 50_000),
        paper.SEARCH_EPOCHS_IMAGENET,
        paper.SEARCH_BATCH_SIZE_IMAGENET,
    ),
    "laptop-cifar10": laptop_cifar10(),
    "folder": folder(),
    "embedded": embedded(),
}
