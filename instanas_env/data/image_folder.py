"""Image folders ``{train,val,test}/<class>/*``, decoded to the resolution of the search space.

Small sets are decoded once and kept; large ones (ImageNet) are decoded whenever they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instanas_env.data.decoding import EXTENSIONS, decode
from instanas_env.data.image_set import Channels, ImageSet
from instanas_env.data.loaded import Size, tell
from instanas_env.data.scanning import Labelled, Passed, class_folders, labelled_images, readable

FOLDER_SETS = ("folder", "tiny_imagenet", "imagenet")
# These two keep their public "val" for testing; their test labels are not public.
_TEST_IS_VAL = ("tiny_imagenet", "imagenet")
KEEP_DECODED_BYTES = 2**31  # TinyImageNet's 90,000 training images take 1.1e9
STATISTICS_IMAGES = 2000
FLAT_VAL = (
    "; the archive of ImageNet's val has no folders, torchvision.datasets.ImageNet(root, 'val') makes them"
)

Cut = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Labels ``(N,)`` to the positions kept for training and those cut off for validation."""


@dataclass(frozen=True)
class FolderImages:
    """An image store: files that are decoded, resized and centre-cropped when indexed.

    Attributes:
        paths: of the files.
        resolution: of the decoded images, px.
        root: the folder that all of them are in.
    """

    paths: tuple[Path, ...]
    resolution: int
    root: Path

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Tensor:
        """What a uint8 tensor ``(N, 3, H, W)`` of all images gives at ``index`` along its first dimension."""
        chosen = torch.arange(len(self.paths))[index]
        images, _ = self.read(chosen.flatten())
        return images.reshape(*chosen.shape, *images.shape[1:])

    def read(self, index: Tensor) -> tuple[Tensor, list[Size]]:
        """uint8 ``(n, 3, H, W)`` of the files at ``index`` ``(n,)``; width and height in each file."""
        images = np.empty((len(index), self.resolution, self.resolution, 3), np.uint8)

        def fill(row: int, position: int) -> Size:
            images[row], size = decode(self.paths[position], self.resolution)
            return size

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # raises what a thread raised
            sizes = list(pool.map(fill, range(len(index)), index.tolist()))
        return torch.from_numpy(images).permute(0, 3, 1, 2), sizes

    def content(self) -> Iterator[bytes]:
        """What stands for the images in a fingerprint: to read all of ImageNet would take too long."""
        yield json.dumps(["files", self.resolution]).encode()
        for path in self.paths:
            yield json.dumps([str(path.relative_to(self.root)), path.stat().st_size]).encode()


def load_folder(dataset: str, folder: Path, split: str, resolution: int, cut: Cut) -> ImageSet:
    """The split of an image folder; without a ``val`` folder, ``cut`` takes one from ``train``."""
    own_val = dataset not in _TEST_IS_VAL and (folder / "val").is_dir()
    part = "val" if split == "test" and dataset in _TEST_IS_VAL else split
    train = folder / "train"
    source = train if split == "val" and not own_val else folder / part
    for needed in (train, source):
        if not needed.is_dir():
            raise FileNotFoundError(f"data_dir: no folder {needed}; expected {needed}/<class>/*.jpg")
    folders = class_folders(train)
    classes = tuple(readable(name) for name in folders)
    passed = Passed()
    of_train = labelled_images(train, folders, Passed() if source != train else passed)
    found = of_train if source == train else labelled_images(source, folders, passed)
    for place, some in ((train, of_train), (source, found)):
        if not some:
            raise FileNotFoundError(
                f"data_dir: no images in {place}/<class>/; readable: {', '.join(sorted(EXTENSIONS))}"
                f"{FLAT_VAL if place.name == 'val' and dataset == 'imagenet' else ''}"
            )
    _check_every_class(of_train, list(folders.values()))
    labels = torch.tensor([label for _, label in found])
    if source == train and not own_val:
        index = cut(labels)[split == "val"]
        found, labels = [found[i] for i in index.tolist()], labels[index]
    if not found:
        raise FileNotFoundError(
            f"data_dir: {train} is too small to cut a validation split off; make {folder}/val/<class>/"
        )

    step = max(1, len(of_train) // STATISTICS_IMAGES)
    sample = FolderImages(tuple(path for path, _ in of_train[::step]), resolution, train)
    seen, sizes = sample.read(torch.arange(len(sample)))
    store = FolderImages(tuple(path for path, _ in found), resolution, source)
    images: Tensor | FolderImages = store
    if len(store) * 3 * resolution**2 <= KEEP_DECODED_BYTES:
        images, sizes = store.read(torch.arange(len(store)))
    loaded = ImageSet(images, labels, classes, *_statistics(seen))
    tell(f"{source} ({split})", loaded, sizes, resolution, passed)
    return loaded


def _check_every_class(found: Labelled, folders: Sequence[Path]) -> None:
    with_images = {label for _, label in found}
    empty = [str(place) for label, place in enumerate(folders) if label not in with_images]
    if empty:
        raise FileNotFoundError(
            f"data_dir: no images in {', '.join(empty[:5])}; remove what is no class, or convert its images:"
            f" readable are {', '.join(sorted(EXTENSIONS))}"
        )


def _statistics(images: Tensor) -> tuple[Channels, Channels]:
    """Mean and standard deviation of each channel, of uint8 ``(N, 3, H, W)``.

    From how often each value occurs, which is exact and takes no memory at any resolution.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([images[:, channel].flatten().bincount(minlength=256) for channel in range(3)])
    total = counts.sum(1)
    mean = (counts * values).sum(1) / total
    squares = (counts * (values - mean.unsqueeze(1)).square()).sum(1)
    std = (squares / (total - 1)).sqrt()
    return tuple(mean.tolist()), tuple(max(s, 1e-3) for s in std.tolist())  # type: ignore[return-value]
