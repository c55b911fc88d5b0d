"""A few generated images in the file structure of CIFAR-100, TinyImageNet and ImageNet, as downloaded.

Every image has one colour, by which it is known again: (60 split, 60 class, number), split 0 for training,
1 for the public validation or test images.
"""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor
from torchvision.datasets import CIFAR100

WNIDS = ("n01443537", "n01629819", "n01641577")
"""Goldfish, fire salamander, bullfrog: the first of TinyImageNet's, classes of ImageNet as well."""
TRAIN_PER_CLASS, PUBLIC_PER_CLASS = 10, 2


def colour(split: int, label: int, number: int) -> tuple[int, int, int]:
    """A colour by which an image is known again."""
    return 60 * split, 60 * label, number


def write(path: Path, image: tuple[int, int, int] | Image.Image) -> None:
    """Write ``image``, or one of 40 x 30 px in one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.new("RGB", (40, 30), image)).save(path)


def colours(images: Tensor) -> list[tuple[int, ...]]:
    """The colour of each one-coloured image."""
    assert (images == images[:, :, :1, :1]).all()
    return [tuple(pixel) for pixel in images[:, :, 0, 0].tolist()]


def cifar100(root: Path, monkeypatch: pytest.MonkeyPatch, classes: int = 3) -> Path:
    """``root/cifar-100-python.tar.gz`` with ``cifar-100-python/{train,test,meta}`` in it; gives ``root``.

    100 names, and images of the first ``classes`` of them. torchvision knows the real files by their MD5
    sums and unpacks and unpickles no others, so it is told those of these; it must not fetch anything.
    """
    folder = root / "made" / "cifar-100-python"
    folder.mkdir(parents=True)
    names = [f"class {i:02}" for i in range(100)]
    files = {"meta": {"fine_label_names": names, "coarse_label_names": [f"super {i}" for i in range(20)]}}
    for split, (name, count) in enumerate({"train": TRAIN_PER_CLASS, "test": PUBLIC_PER_CLASS}.items()):
        of = [(label, number) for number in range(count) for label in range(classes)]
        pixels = np.array([colour(split, label, number) for label, number in of], np.uint8)
        files[name] = {
            "filenames": [f"image_s_{i:06}.png" for i in range(len(of))],
            "batch_label": f"{name}ing batch 1 of 1",
            "fine_labels": [label for label, _ in of],
            "coarse_labels": [label % 20 for label, _ in of],
            "data": pixels.repeat(32 * 32, axis=1),  # a row an image: red, green and blue, 32 x 32 each
        }
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    archive = root / CIFAR100.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    monkeypatch.setattr(CIFAR100, "url", (root / "nowhere").as_uri())
    monkeypatch.setattr(CIFAR100, "tgz_md5", md5(archive))
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5(folder / "train")]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5(folder / "test")]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5(folder / "meta")})
    return root


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def tiny_imagenet(root: Path) -> Path:
    """``tiny-imagenet-200`` as it is unpacked; gives that folder."""
    folder = root / "tiny-imagenet-200"
    for label, wnid in enumerate(WNIDS):
        place = folder / "train" / wnid
        for number in range(TRAIN_PER_CLASS):
            write(place / "images" / f"{wnid}_{number}.JPEG", square(0, label, number))
        boxes = "".join(f"{wnid}_{number}.JPEG\t0\t10\t63\t58\n" for number in range(TRAIN_PER_CLASS))
        (place / f"{wnid}_boxes.txt").write_text(boxes)
    annotations = ""
    for i, label in enumerate([2, 0, 1] * PUBLIC_PER_CLASS):
        write(folder / "val" / "images" / f"val_{i}.JPEG", square(1, label, i))
        annotations += f"val_{i}.JPEG\t{WNIDS[label]}\t0\t32\t44\t62\n"
    (folder / "val" / "val_annotations.txt").write_text(annotations)
    write(folder / "test" / "images" / "test_0.JPEG", (255, 255, 255))  # their labels are secret
    (folder / "wnids.txt").write_text("\n".join(reversed(WNIDS)) + "\n")  # in no order, like the real one
    (folder / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\nn00001740\tentity\n")
    return folder


def square(split: int, label: int, number: int) -> Image.Image:
    """TinyImageNet's images have 64 x 64 px, and here and there one is grey."""
    image = Image.new("RGB", (64, 64), colour(split, label, number))
    return image.convert("L") if split == 0 and number == TRAIN_PER_CLASS - 1 else image


def imagenet(root: Path) -> Path:
    """``{train,val}/<wnid>/*.JPEG`` of all the shapes that ImageNet's files have; gives ``root``."""
    odd = {
        0: lambda of: Image.new("RGB", (500, 375), of),
        1: lambda of: Image.new("RGB", (375, 500), of),
        2: lambda of: Image.new("RGB", (9, 11), of),  # n04476259_13477.JPEG has 20 x 17 px
        3: lambda of: Image.new("RGB", (600, 40), of),
        4: lambda of: Image.new("RGB", (300, 300), of).convert("L"),
        5: lambda of: Image.new("RGB", (300, 300), of).convert("CMYK"),
    }
    for label, wnid in enumerate(WNIDS):
        for number in range(TRAIN_PER_CLASS):
            image = odd[number % len(odd)](colour(0, label, number))
            write(root / "train" / wnid / f"{wnid}_{number}.JPEG", image)
        for i in range(PUBLIC_PER_CLASS):
            name = f"ILSVRC2012_val_{1 + len(WNIDS) * i + label:08}.JPEG"
            write(root / "val" / wnid / name, Image.new("RGB", (500, 375), colour(1, label, i)))
    # n02105855_2933.JPEG is a PNG in truth.
    Image.new("RGBA", (64, 64), (*colour(0, 1, 6), 255)).save(
        root / "train" / WNIDS[1] / f"{WNIDS[1]}_6.JPEG", format="PNG"
    )
    return root
