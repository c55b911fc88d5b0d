"""CIFAR-100, TinyImageNet and ImageNet, read from the files that one downloads."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.datasets import CIFAR100

from instanas_env.data import load_images
from instanas_env.data.image_set import ImageSet
from tests.tools.data_sets import (
    PUBLIC_PER_CLASS,
    TRAIN_PER_CLASS,
    WNIDS,
    cifar100,
    colour,
    colours,
    imagenet,
    tiny_imagenet,
)

# A tenth of ten training images of every class is kept for validation; the public images are the test split.
SPLITS = {"train": (0, TRAIN_PER_CLASS - 1), "val": (0, 1), "test": (1, PUBLIC_PER_CLASS)}


def check_balance(loaded: ImageSet, count: int, resolution: int) -> None:
    assert loaded.images[torch.arange(len(loaded))].shape == (3 * count, 3, resolution, resolution)
    assert loaded.labels.bincount().tolist() == [count] * 3


@pytest.mark.parametrize("resolution", [32, 16])
def test_cifar100_is_unpacked_and_read(tmp_path, monkeypatch, resolution):
    """Every image with its own label; its class is the fine one, of which there are 100."""
    root = cifar100(tmp_path, monkeypatch)
    seen = set()
    for split, (part, count) in SPLITS.items():
        loaded = load_images("cifar100", split, root, resolution)
        check_balance(loaded, count, resolution)
        assert len(loaded.classes) == 100 and loaded.classes[1] == "class 01"
        assert [(red, green) for red, green, _ in colours(loaded.images)] == [
            colour(part, label, 0)[:2] for label in loaded.labels.tolist()
        ]
        seen |= set(colours(loaded.images))
    assert len(seen) == 3 * (TRAIN_PER_CLASS + PUBLIC_PER_CLASS), "no image in two splits"
    (root / CIFAR100.filename).unlink()
    assert len(load_images("cifar100", "test", root)) == 6, "also without the archive"


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_cifar_file_of_somebody_else_is_not_unpickled(tmp_path, monkeypatch, name):
    """One that would run code: its MD5 sum is not that of the real one, so it is never opened."""
    root = cifar100(tmp_path, monkeypatch)
    load_images("cifar100", "test", root)
    (root / CIFAR100.filename).unlink()
    trap = root / "trap"
    (root / "cifar-100-python" / name).write_bytes(pickle.dumps(MakesAFolder(trap)))
    for split in ("train", "test"):
        with pytest.raises(FileNotFoundError, match=r"^data_dir: CIFAR100 is not in "):
            load_images("cifar100", split, root)
    assert not trap.exists()
    pickle.loads((root / "cifar-100-python" / name).read_bytes())
    assert trap.exists(), "the trap works"


class MakesAFolder:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    ("dataset", "make", "resolution"),
    [("tiny_imagenet", tiny_imagenet, 64), ("imagenet", imagenet, 224)],
)
def test_the_public_val_of_these_sets_is_the_test_split(
    tmp_path, dataset: str, make: Callable[[Path], Path], resolution
):
    """Classes in the order of their names. Told apart by luminance, as some are grey or CMYK, and all JPEG:
    0.299 R + 0.587 G + 0.114 B is near 18 split + 35 class, number 0 to 9 adding 1 at most.
    """
    folder = make(tmp_path)
    for split, (part, count) in SPLITS.items():
        loaded = load_images(dataset, split, folder, resolution)
        assert loaded.classes == WNIDS
        check_balance(loaded, count, resolution)
        means = loaded.images.float().mean((2, 3))
        luminance = means @ torch.tensor([0.299, 0.587, 0.114])
        expected = 18.0 * part + 35.0 * loaded.labels
        torch.testing.assert_close(luminance, expected, rtol=0, atol=5)


@pytest.mark.parametrize("dataset", ["tiny_imagenet", "imagenet"])
def test_tiny_imagenet_sorted_into_folders_is_read_as_well(tmp_path, dataset):
    """As many preparation scripts leave it: val/<wnid>/images, the annotations still there."""
    folder = tiny_imagenet(tmp_path)
    for i, label in enumerate([2, 0, 1] * PUBLIC_PER_CLASS):
        place = folder / "val" / WNIDS[label] / "images"
        place.mkdir(parents=True, exist_ok=True)
        (folder / "val" / "images" / f"val_{i}.JPEG").rename(place / f"val_{i}.JPEG")
    (folder / "val" / "images").rmdir()
    assert load_images(dataset, "test", folder, 64).labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_files_that_no_camera_made_are_passed_over(tmp_path):
    """macOS leaves ``._name.JPEG`` beside every file that it unpacks from an archive."""
    root = imagenet(tmp_path)
    (root / "train" / WNIDS[0] / f"._{WNIDS[0]}_0.JPEG").write_bytes(b"Mac OS X")
    assert len(load_images("imagenet", "train", root, 32)) == 27


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    root = imagenet(tmp_path / "imagenet")
    for path in [*(root / "val").rglob("*.JPEG")]:  # as in the archive: all in one folder
        path.rename(root / "val" / path.name)
    with pytest.raises(
        FileNotFoundError, match=r"data_dir: no images in .*val/<class>/.*ImageNet\(root, 'val'\)"
    ):
        load_images("imagenet", "test", root, 32)
    cut = root / "train" / WNIDS[2] / f"{WNIDS[2]}_3.JPEG"
    cut.write_bytes(cut.read_bytes()[:-200])
    with pytest.raises(ValueError, match=rf"^data_dir: {cut} is no whole image"):
        load_images("imagenet", "train", root, 32)

    tiny = tiny_imagenet(tmp_path)
    annotations = tiny / "val" / "val_annotations.txt"
    annotations.write_text(annotations.read_text() + "val_9.JPEG\tn99999999\t0\t0\t9\t9\n")
    with pytest.raises(
        ValueError, match=r"^data_dir: .*val_annotations.txt names the class n99999999, which"
    ):
        load_images("tiny_imagenet", "test", tiny, 32)
