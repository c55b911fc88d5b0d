"""A fingerprint changes with a name, a label or a byte, and with nothing else."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest
import torch

from instanas_env.data import ImageSet, image_folder, load_images
from tests.tools.data_sets import colour, write

IMAGES = torch.arange(4 * 3 * 5 * 5).reshape(4, 3, 5, 5).to(torch.uint8)
SET = ImageSet(IMAGES, torch.tensor([0, 1, 1, 0]), ("cat", "dog"), (0.5,) * 3, (0.5,) * 3)


def other_byte() -> torch.Tensor:
    images = IMAGES.clone()
    images[3, 2, 4, 4] ^= 1
    return images


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ("cat", "dogs")},
        {"classes": ("dog", "cat")},
        {"classes": ("cat", "dog", "bird")},
        {"classes": ('cat", "dog',)},
        {"labels": torch.tensor([1, 0, 1, 0])},
        {"images": other_byte()},
        {"images": IMAGES.flip(0)},
        {"images": IMAGES.reshape(4, 3, 1, 25)},
        {"images": IMAGES[:3], "labels": SET.labels[:3]},
    ],
)
def test_it_changes_with_names_labels_and_bytes(changes):
    assert replace(SET, **changes).fingerprint != SET.fingerprint


def test_it_depends_on_nothing_else():
    """Not on strides, nor on mean and deviation, which follow from other images."""
    last = IMAGES.contiguous(memory_format=torch.channels_last)
    same = replace(SET, images=last, labels=SET.labels.int(), mean=(0.1,) * 3)
    assert last.stride() != IMAGES.stride() and same.fingerprint == SET.fingerprint
    grey = IMAGES[:, :1]
    wide, whole = grey.expand(-1, 3, -1, -1), grey.repeat(1, 3, 1, 1)
    assert replace(SET, images=wide).fingerprint == replace(SET, images=whole).fingerprint


def test_it_is_the_same_on_every_machine():
    """Stored, as runs are resumed elsewhere."""
    assert load_images("embedded", "val").fingerprint == "51bec1c2f7c4685df16f5d00d2b8b4c0"
    assert SET.fingerprint == "009b4c787e5c7d46d060568b8ad80b7f"


def test_it_is_computed_once_and_not_handed_on():
    images = load_images("embedded", "val")
    assert images.fingerprint is images.fingerprint
    assert images.take(torch.arange(999)).fingerprint != images.fingerprint
    assert images.take(torch.arange(1000)).fingerprint == images.fingerprint


def test_files_that_are_decoded_on_demand_count_by_name_and_size(tmp_path, monkeypatch):
    monkeypatch.setattr(image_folder, "KEEP_DECODED_BYTES", 0)
    for label, name in enumerate(("cat", "dog")):
        for i in range(3):
            write(tmp_path / "here" / "train" / name / f"{i}.png", colour(0, label, i))
    (tmp_path / "here" / "val").mkdir()
    shutil.copytree(tmp_path / "here", tmp_path / "there")

    def of(place: str) -> str:
        return load_images("folder", "train", tmp_path / place, 8).fingerprint

    before = of("here")
    assert of("there") == before, "wherever the folder is"
    path = tmp_path / "there" / "train" / "dog" / "0.png"
    os.utime(path, (0, 0))
    assert of("there") == before, "whenever it was copied"
    path.write_bytes(path.read_bytes() + b"\0")
    assert of("there") != before
    path.rename(path.with_name("9.png"))
    assert of("here") == before
