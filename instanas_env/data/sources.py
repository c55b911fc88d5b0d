"""Where the images come from: one function, :func:`load_images`, for every data set.

Splits are "train", "val" and "test". Where a data set has no validation split of its own, a tenth of
every class of its training images is cut off, always the same tenth.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from instanas_env import checks
from instanas_env.data.image_folder import FOLDER_SETS, load_folder
from instanas_env.data.image_set import Channels, ImageSet, split_by_class
from instanas_env.data.loaded import tell
from instanas_env.storage import PathLike

MOST_PX = 4096
SPLITS = ("train", "val", "test")
VALIDATION_FRACTION = 0.1
VALIDATION_SEED = 0
DEFAULT_DATA_DIR = Path("~/.cache/instanas_env")
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
# These are of the training images padded to 32 x 32 with black.
FASHION_MEAN, FASHION_STD = (0.2190,) * 3, (0.3318,) * 3


def load_images(
    dataset: str = "embedded",
    split: str = "train",
    data_dir: PathLike | None = None,
    resolution: int = 32,
) -> ImageSet:
    """Load one split of a data set; the logger "instanas_env" says in a line what was read.

    Args:
        dataset: "embedded" (6,000 images of Fashion-MNIST that come with the package),
            "fashion_mnist", "cifar10", "cifar100" (downloaded by torchvision if absent), or a folder
            ``data_dir/{train,val,test}/<class>/*``: "folder", "tiny_imagenet", "imagenet".
        split: "train", "val" or "test".
        data_dir: where the files are, or are to be put; ``~/.cache/instanas_env`` by default.
        resolution: side of the images in px; they are resized if they differ.

    Raises:
        ValueError: unknown data set or split, a damaged image, or a folder that is no class of train.
        FileNotFoundError: the data are not there; the message says how to get them.
    """
    checks.choice("dataset", dataset, DATASETS)
    checks.choice("split", split, SPLITS)
    checks.whole("resolution", resolution, 1, MOST_PX)
    folder = checks.path("data_dir", DEFAULT_DATA_DIR if data_dir is None else data_dir).expanduser()
    if dataset in FOLDER_SETS:
        if data_dir is None:
            raise FileNotFoundError(f"data_dir: {dataset!r} needs the folder with train/<class>/ in it")
        return load_folder(dataset, folder, split, resolution, _validation_cut)
    if dataset == "embedded":
        found = _embedded(split)
    else:
        found = _LOADERS[dataset](folder, split != "test")
        if split != "test":
            found = found.take(_validation_cut(found.labels)[split == "val"])
    images = found.images[:]
    size = (images.shape[-1], images.shape[-2])
    if images.shape[-1] != resolution:
        images = F.interpolate(images, (resolution, resolution), mode="bilinear", antialias=True)
    loaded = replace(found, images=images.expand(-1, 3, -1, -1))
    tell(f"{dataset} ({split})", loaded, [size], resolution)
    return loaded


def _validation_cut(labels: Tensor) -> tuple[Tensor, Tensor]:
    return split_by_class(labels, VALIDATION_FRACTION, VALIDATION_SEED)


def _fashion(images: np.ndarray, labels: np.ndarray) -> ImageSet:
    """28 x 28 grey images ``(N, 28, 28)``, padded with black to ``(N, 1, 32, 32)``."""
    padded = F.pad(torch.from_numpy(images).unsqueeze(1), (2, 2, 2, 2))
    return ImageSet(padded, torch.from_numpy(labels).long(), FASHION_CLASSES, FASHION_MEAN, FASHION_STD)


def _embedded(split: str) -> ImageSet:
    with files("instanas_env").joinpath("assets/fashion_mnist_6k.npz").open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        return _fashion(arrays[f"{split}_images"], arrays[f"{split}_labels"])


def read_idx(path: Path, header: int) -> np.ndarray:
    """The bytes of a gzipped IDX file after its ``header`` bytes, uint8, flat."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header).copy()


def _fashion_mnist(folder: Path, train: bool) -> ImageSet:
    if DEBIAN_FASHION_MNIST.is_dir():
        part = "train" if train else "t10k"
        images = read_idx(DEBIAN_FASHION_MNIST / f"{part}-images-idx3-ubyte.gz", 16)
        labels = read_idx(DEBIAN_FASHION_MNIST / f"{part}-labels-idx1-ubyte.gz", 8)
        return _fashion(images.reshape(-1, 28, 28), labels)
    hint = "; or on Debian: apt install dataset-fashion-mnist"
    data = _torchvision("FashionMNIST", folder, train, hint)
    return _fashion(data.data.numpy(), data.targets.numpy())


def _cifar(name: str, mean: Channels, std: Channels, folder: Path, train: bool) -> ImageSet:
    data = _torchvision(name, folder, train)
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2)
    return ImageSet(images, torch.tensor(data.targets), tuple(data.classes), mean, std)


def _torchvision(name: str, folder: Path, train: bool, hint: str = "") -> Any:
    from torchvision import datasets  # half a second that the embedded images do not need

    try:
        return getattr(datasets, name)(folder, train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"data_dir: {name} is not in {folder} and could not be downloaded ({error}). Copy the files of"
            f" torchvision.datasets.{name} there, or run once with a network{hint}"
        ) from error


_LOADERS: dict[str, Callable[[Path, bool], ImageSet]] = {
    "fashion_mnist": _fashion_mnist,
    "cifar10": partial(_cifar, "CIFAR10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": partial(_cifar, "CIFAR100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
DATASETS = ("embedded", *_LOADERS, *FOLDER_SETS)
