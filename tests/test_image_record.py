"""The record of images: what is saved comes back, small, and nothing else is taken for one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.evaluation.image_record import Choices, ImageRecord, make_record
from instanas_env.data import ImageSet
from instanas_env.storage import save_weights


def image_set(count: int, classes: int, size: int = 32) -> ImageSet:
    """Colourful images, labels in turn."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    names = tuple(f"class {label}" for label in range(classes))
    return ImageSet(images, torch.arange(count) % classes, names, (0.5,) * 3, (0.25,) * 3)


def policy(count: int, networks: int) -> Choices:
    return Choices(torch.arange(count) % networks, (torch.arange(count) % 2).to(torch.uint8))


def test_what_is_saved_comes_back(tmp_path):
    policies = {"a, dial 0.4": policy(60, 7), "b/c": policy(60, 1)}
    record = make_record(image_set(60, 3), policies, seed=0)
    record.save(tmp_path / "images.safetensors")
    loaded = ImageRecord.load(tmp_path / "images.safetensors")
    assert loaded.classes == ("class 0", "class 1", "class 2")
    assert loaded.policies.keys() == policies.keys()
    for name, choices in policies.items():
        assert torch.equal(loaded.policies[name].network, choices.network)
        assert torch.equal(loaded.policies[name].correct, choices.correct)
    for name in ("label", "sample", "thumbnails"):
        assert torch.equal(getattr(loaded, name), getattr(record, name)), name


def test_ten_thousand_images_are_a_few_hundred_kilobytes(tmp_path):
    """2 bytes a label, 3 an image and policy, 24 thumbnails of 3 * 32 * 32 bytes in each of ten classes."""
    policies = {str(number): policy(10_000, 10_000) for number in range(4)}
    make_record(image_set(10_000, 10, size=4), policies, seed=0).save(tmp_path / "images.safetensors")
    tensors = 10_000 * (2 + 4 * 3) + 240 * (4 + 3 * 4 * 4)
    assert tensors < (tmp_path / "images.safetensors").stat().st_size < tensors + 2000


def test_so_many_networks_that_two_bytes_do_not_hold_them(tmp_path):
    """A split of 40,000 images may get 40,000 networks; int16 ends at 32,767."""
    label = torch.zeros(40_000, dtype=torch.int64)
    one = ImageRecord(
        label, torch.tensor([0]), torch.zeros(1, 1, 2, 2), ("a",), {"p": policy(40_000, 40_000)}
    )
    one.save(tmp_path / "images.safetensors")
    network = ImageRecord.load(tmp_path / "images.safetensors").policies["p"].network
    assert torch.equal(network, torch.arange(40_000))


def test_thumbnails_are_of_the_sampled_images_equally_many_of_each_class():
    """240 thumbnails for 100 classes are two of each."""
    images = image_set(1000, 100)
    record = make_record(images, {}, seed=3)
    assert torch.equal(record.thumbnails, images.images[record.sample])
    assert record.label[record.sample].bincount().tolist() == [2] * 100
    assert not torch.equal(record.sample, make_record(images, {}, seed=4).sample)


def test_large_images_are_shrunk_by_averaging():
    """64 px to 32: each pixel is the rounded mean of four."""
    images = image_set(4, 1, size=64)
    shrunk = make_record(images, {}, seed=0).thumbnails.numpy()
    mean = images.images.numpy().reshape(4, 3, 32, 2, 32, 2).astype(float).mean((3, 5))
    assert np.abs(shrunk - mean).max() <= 0.5


def test_grey_images_keep_one_channel():
    colourful = image_set(6, 2)
    grey = replace(colourful, images=colourful.images[:, :1].expand(-1, 3, -1, -1))
    assert make_record(grey, {}, seed=0).thumbnails.shape[1] == 1
    assert make_record(colourful, {}, seed=0).thumbnails.shape[1] == 3


def test_other_files_are_named(tmp_path):
    path = tmp_path / "images.safetensors"
    save_weights(path, {"label": torch.zeros(3)}, {"classes": [], "policies": []})
    with pytest.raises(ValueError, match="images: .*images.safetensors is not a record of images"):
        ImageRecord.load(path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="images.safetensors"):
        ImageRecord.load(path)
