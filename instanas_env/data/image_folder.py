"""Image folders ``{train,val,test}/<class>/*``, decoded to the resolution of the search space.

Small sets are decoded once and kept; large ones (ImageNet) are decoded whenever they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from instanas_env.data.image_set import ImageSet

FOLDER_SETS = ("folder", "tiny_imagenet", "imagenet")
# These two keep their public "val" for testing; their test labels are not public.
_TEST_IS_VAL = ("tiny_imagenet", "imagenet")
EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp"}
KEEP_DECODED_BYTES = 2**31  # TinyImageNet's 90,000 training images take 1.1e9
STATISTICS_IMAGES = 2000
FLAT_VAL = (
    "; the archive of ImageNet's val has no folders, torchvision.datasets.ImageNet(root, 'val') makes them"
)

Cut = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Labels ``(N,)`` to the positions kept for training and those cut off for validation."""


@dataclass(frozen=True)
class FolderImages:
    """An image store: files that are decoded, resized and centre-cropped when indexed."""

    paths: tuple[Path, ...]
    resolution: int

    def __getitem__(self, index: Tensor) -> Tensor:
        """uint8 ``(n, 3, H, W)`` of the files at ``index`` ``(n,)``."""
        images = np.empty((len(index), self.resolution, self.resolution, 3), np.uint8)

        def decode(row: int, position: int) -> None:
            images[row] = self._decode(self.paths[position])

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(decode, range(len(index)), index.tolist()))  # raises what a thread raised
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    def _decode(self, path: Path) -> np.ndarray:
        from PIL import Image, ImageOps

        side = (self.resolution, self.resolution)
        try:
            with Image.open(path) as image:
                return np.asarray(ImageOps.fit(image.convert("RGB"), side, Image.Resampling.BILINEAR))
        except OSError as error:
            raise ValueError(f"data_dir: {path} is no whole image ({error}); fetch or remove it") from error


def load_folder(dataset: str, folder: Path, split: str, resolution: int, cut: Cut) -> ImageSet:
    """The split of an image folder; without a ``val`` folder, ``cut`` takes one from ``train``."""
    own_val = dataset not in _TEST_IS_VAL and (folder / "val").is_dir()
    part = "val" if split == "test" and dataset in _TEST_IS_VAL else split
    train = folder / "train"
    source = train if split == "val" and not own_val else folder / part
    for needed in (train, source):
        if not needed.is_dir():
            raise FileNotFoundError(f"data_dir: no folder {needed}; expected {needed}/<class>/*.jpg")
    classes = tuple(sorted(path.name for path in train.iterdir() if path.is_dir() and path.name[0] != "."))
    train_paths, train_labels = _scan(train, classes)
    paths, labels = (train_paths, train_labels) if source == train else _scan(source, classes)
    for place, found in ((train, train_paths), (source, paths)):
        if not found:
            raise FileNotFoundError(
                f"data_dir: no images in {place}/<class>/; readable: {', '.join(sorted(EXTENSIONS))}"
                f"{FLAT_VAL if place.name == 'val' and dataset == 'imagenet' else ''}"
            )
    if source == train and not own_val:
        index = cut(labels)[split == "val"]
        paths, labels = [paths[i] for i in index.tolist()], labels[index]
    if not paths:
        raise FileNotFoundError(
            f"data_dir: {train} is too small to cut a validation split off; make {folder}/val/<class>/"
        )

    mean, std = _statistics(FolderImages(tuple(train_paths), resolution))
    store = FolderImages(tuple(paths), resolution)
    small = len(paths) * 3 * resolution**2 <= KEEP_DECODED_BYTES
    images = store[torch.arange(len(paths))] if small else store
    return ImageSet(images, labels, classes, mean, std)


def _scan(source: Path, classes: tuple[str, ...]) -> tuple[list[Path], Tensor]:
    """Image files and their labels; also TinyImageNet's ``val/images`` with ``val_annotations.txt``."""
    annotations, flat = source / "val_annotations.txt", source / "images"
    if annotations.is_file() and flat.is_dir():
        found = [(flat / name, label) for name, label in _annotated(annotations, classes)]
    else:
        found = [
            (path, label)
            for label, name in enumerate(classes)
            for path in sorted((source / name).rglob("*"))
            if path.suffix.lower() in EXTENSIONS and path.name[0] != "."
        ]
    return [path for path, _ in found], torch.tensor([label for _, label in found], dtype=torch.long)


def _annotated(annotations: Path, classes: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """File name and label of every line of TinyImageNet's ``val_annotations.txt``."""
    label_of = {name: label for label, name in enumerate(classes)}
    for line in annotations.read_text().splitlines():
        name, class_name = line.split("\t")[:2]
        if class_name not in label_of:
            raise ValueError(
                f"data_dir: {annotations} names the class {class_name}, which has no folder in train"
            )
        yield name, label_of[class_name]


def _statistics(store: FolderImages) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of each channel over evenly spaced training images."""
    step = max(1, len(store.paths) // STATISTICS_IMAGES)
    pixels = store[torch.arange(0, len(store.paths), step)].double() / 255
    mean, std = pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3)).tolist()
    return tuple(mean), tuple(max(s, 1e-3) for s in std)  # type: ignore[return-value]
