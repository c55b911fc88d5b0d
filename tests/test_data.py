"""Images: the embedded set, augmentation on tensors, and the folder layouts that people have."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from instanas_env.data import SPLITS, Augmentation, augment, image_folder, load_images
from instanas_env.data.image_set import split_by_class
from instanas_env.data.sources import DEBIAN_FASHION_MNIST
from tests.tools import embed_images
from tests.tools.data_sets import colour, colours, write

RAMP = torch.arange(1, 17, dtype=torch.uint8).reshape(1, 1, 4, 4).expand(1, 3, 4, 4)
debian = pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="needs dataset-fashion-mnist")


def fill(folder: Path, split: int, per_class: int) -> None:
    """``folder/{cat,dog}/0..`` with colours of (split, label, number)."""
    for label, name in enumerate(("cat", "dog")):
        for number in range(per_class):
            write(folder / name / f"{number:02}.png", colour(split, label, number))


def test_embedded_splits():
    """Balanced by class, padded with black, no image in two splits (measured: no duplicates at all)."""
    seen: set[bytes] = set()
    for split, per_class in {"train": 400, "val": 100, "test": 100}.items():
        loaded = load_images("embedded", split)
        images = loaded.images
        assert images.shape == (10 * per_class, 3, 32, 32) and images.dtype == torch.uint8
        assert loaded.labels.bincount().tolist() == [per_class] * 10
        assert images[:, :, 2:-2, 2:-2].sum() == images.sum(), "a black rim of 2 px"
        assert torch.equal(images[:, 0], images[:, 2]), "grey"
        seen |= {image.numpy().tobytes() for image in images[:, 0]}
    assert len(seen) == 4000 + 1000 + 1000
    assert len(files("instanas_env").joinpath("assets/fashion_mnist_6k.npz").read_bytes()) < 3_000_000


def test_images_are_resized_to_the_resolution_of_the_space():
    small, large = load_images("embedded", "val"), load_images("embedded", "val", resolution=64)
    assert large.images.shape == (1000, 3, 64, 64) and large.images.dtype == torch.uint8
    assert (torch.nn.functional.avg_pool2d(large.images.float(), 2) - small.images).abs().mean() < 10


@debian
def test_the_embedded_file_is_what_the_script_makes(tmp_path):
    made, ours = tmp_path / "a.npz", files("instanas_env").joinpath("assets/fashion_mnist_6k.npz")
    embed_images.main(embed_images.Options(out=made))
    with ours.open("rb") as file, np.load(file) as arrays, np.load(made) as again:
        assert arrays.files == again.files
        assert all(np.array_equal(arrays[name], again[name]) for name in arrays.files)
    assert made.stat().st_size < 3_000_000


@debian
def test_fashion_mnist_from_debian():
    for split, count in {"train": 54_000, "val": 6_000, "test": 10_000}.items():
        loaded = load_images("fashion_mnist", split)
        assert loaded.images.shape == (count, 3, 32, 32)
        assert loaded.labels.bincount().tolist() == [count // 10] * 10


def test_take_and_normalize():
    """The arithmetic for two images; near zero mean and unit variance over all that one trains on."""
    whole, index = load_images(), torch.tensor([7, 3])
    some = whole.take(index)
    assert torch.equal(some.images, whole.images[index]) and torch.equal(some.labels, whole.labels[index])
    expected = (some.images.double() / 255 - 0.2190) / 0.3318
    torch.testing.assert_close(some.normalize(some.images).double(), expected, rtol=1e-5, atol=1e-5)
    pixels = whole.normalize(whole.images)
    assert pixels.mean((0, 2, 3)).abs().max() < 0.05
    assert (pixels.std((0, 2, 3)) - 1).abs().max() < 0.05


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4), fraction=st.floats(0.0, 1.0))
def test_a_split_takes_its_fraction_of_every_class(sizes, fraction):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    kept, cut = split_by_class(labels, fraction, seed=0)
    assert torch.cat([kept, cut]).sort().values.tolist() == list(range(len(labels)))
    assert [(labels[cut] == k).sum() for k in range(len(sizes))] == [round(fraction * size) for size in sizes]
    assert torch.equal(split_by_class(labels, fraction, seed=0)[1], cut)


@given(seed=st.integers(0, 2**32 - 1), side=st.integers(1, 9))
def test_nothing_asked_nothing_done(seed, side):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (3, 3, side, side), generator=generator).byte()
    settings = Augmentation(crop_padding=0.0, flip=False, cutout=0.0)
    assert torch.equal(augment(images, settings, torch.rand(3, 5, generator=generator)), images)


@pytest.mark.parametrize(
    ("shift_y", "shift_x", "flip", "expected"),
    [
        (0.5, 0.5, 0.5, [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]),
        (0.0, 0.5, 0.5, [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]),
        (0.5, 1 - 2**-24, 0.5, [[2, 3, 4, 0], [6, 7, 8, 0], [10, 11, 12, 0], [14, 15, 16, 0]]),
        (0.9, 0.1, 0.5, [[0, 5, 6, 7], [0, 9, 10, 11], [0, 13, 14, 15], [0, 0, 0, 0]]),
        (0.5, 0.5, 0.49, [[4, 3, 2, 1], [8, 7, 6, 5], [12, 11, 10, 9], [16, 15, 14, 13]]),
    ],
)
def test_crop_and_flip_golden_examples(shift_y, shift_x, flip, expected):
    """Padding 1: a uniform u starts the window at floor(3 u) of 0, 1, 2. 1 - 2^-24 is rand's largest."""
    out = augment(RAMP, Augmentation(0.25, True, 0.0), torch.tensor([[shift_y, shift_x, flip, 0.0, 0.0]]))
    assert out.tolist() == [[expected] * 3]


def test_cutout_golden_example():
    """Side 0.5 x 4 = 2, centre (floor(0.5 x 4), 0), so rows 1 and 2, columns -1 and 0: half of it outside."""
    out = augment(RAMP, Augmentation(0.0, False, 0.5), torch.tensor([[0.0, 0.0, 0.0, 0.5, 0.0]]))
    assert (out[0, 1] == 0).nonzero().tolist() == [[1, 0], [2, 0]]
    assert torch.equal(out == RAMP, out != 0)


@given(seed=st.integers(0, 2**32 - 1), cutout=st.floats(0.0, 1.0))
def test_cutout_takes_at_most_its_square(seed, cutout):
    uniforms = torch.rand(4, 5, generator=torch.Generator().manual_seed(seed))
    out = augment(torch.ones(4, 3, 8, 8), Augmentation(0.0, False, cutout), uniforms)
    assert ((out == 0).sum((2, 3)) <= round(8 * cutout) ** 2).all()


def test_each_image_has_its_own_draw_alone_and_in_a_batch():
    images, uniforms = load_images("embedded", "val").images[:8], torch.rand(8, 5)
    before = images.clone()
    out = augment(images, Augmentation(), uniforms)
    assert torch.equal(images, before), "the input stays as it is"
    assert out.shape == images.shape and out.dtype == torch.uint8
    assert out.is_contiguous(memory_format=torch.channels_last)
    alone = [augment(images[i : i + 1], Augmentation(), uniforms[i : i + 1]) for i in range(8)]
    assert torch.equal(out, torch.cat(alone))
    assert len(augment(images[[0] * 8], Augmentation(), uniforms).flatten(1).unique(dim=0)) == 8


def test_folder_with_three_splits(tmp_path):
    """Every image with its own label, in the order of the names; other files are passed over."""
    for number, split in enumerate(SPLITS):
        fill(tmp_path / split, number, per_class=3 + number)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    for number, split in enumerate(SPLITS):
        loaded = load_images("folder", split, tmp_path, resolution=16)
        assert loaded.classes == ("cat", "dog")
        assert loaded.images.shape == (2 * (3 + number), 3, 16, 16) and loaded.images.dtype == torch.uint8
        assert loaded.labels.tolist() == [0] * (3 + number) + [1] * (3 + number)
        expected = [colour(number, label, i) for label in (0, 1) for i in range(3 + number)]
        assert colours(loaded.images) == expected


def test_without_val_a_tenth_of_every_class_is_cut_off(tmp_path):
    fill(tmp_path / "train", 0, per_class=20)
    train, val = (load_images("folder", split, tmp_path, 8) for split in ("train", "val"))
    assert train.labels.bincount().tolist() == [18, 18] and val.labels.bincount().tolist() == [2, 2]
    both = {*colours(train.images), *colours(val.images)}
    assert both == {colour(0, label, i) for label in (0, 1) for i in range(20)}
    assert [c[1] // 60 for c in colours(val.images)] == val.labels.tolist()


def test_grey_transparent_and_wide_images(tmp_path):
    """Three channels whatever the file has; the middle square of an image that is not square."""
    grey, clear = Image.new("L", (20, 20), 50), Image.new("RGBA", (20, 20), (10, 20, 30, 255))
    wide = Image.new("RGB", (64, 16), (255, 0, 0))
    wide.paste((0, 0, 255), (24, 0, 40, 16))
    for number, image in enumerate((grey, clear, wide)):
        write(tmp_path / "train" / "a" / f"{number}.png", image)
    (tmp_path / "val").mkdir()
    loaded = load_images("folder", "train", tmp_path, 16)
    assert colours(loaded.images) == [(50, 50, 50), (10, 20, 30), (0, 0, 255)]
    torch.testing.assert_close(loaded.mean[0], (50 + 10 + 0) / 3 / 255)


def test_files_decoded_on_demand_are_the_same_images(tmp_path, monkeypatch):
    """ImageNet does not fit into memory: above a size the set decodes whenever it is indexed."""
    fill(tmp_path / "train", 0, per_class=10)
    eager = load_images("folder", "train", tmp_path, 16)
    monkeypatch.setattr(image_folder, "KEEP_DECODED_BYTES", 0)
    lazy = load_images("folder", "train", tmp_path, 16)
    assert isinstance(eager.images, Tensor) and not isinstance(lazy.images, Tensor)
    assert torch.equal(lazy.images[torch.tensor([11, 0, 5])], eager.images[[11, 0, 5]])
    assert (lazy.mean, lazy.std) == (eager.mean, eager.std)


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match=r"dataset: unknown 'mnist'; choose from embedded, "):
        load_images("mnist")
    with pytest.raises(ValueError, match=r"split: unknown 'dev'; choose from train, val, test"):
        load_images("embedded", "dev")


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("made", [(), ("train",), ("train/cat",), ("train/cat", "val/cat")])
def test_missing_images_say_what_is_expected(tmp_path, made, split):
    """Also where val has an image and train none: its statistics, and so every logit, would be nan."""
    for folder in made:
        (tmp_path / folder).mkdir(parents=True)
    if "val/cat" in made:
        write(tmp_path / "val" / "cat" / "0.png", colour(0, 0, 0))
    with pytest.raises(FileNotFoundError, match=r"data_dir: no .*train.*<class>"):
        load_images("folder", split, tmp_path)


def test_missing_data_say_how_to_get_them(tmp_path):
    """A file where the folder should be makes torchvision fail before it reaches for the network."""
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"data_dir: CIFAR10 is not in .*file .*run once with"):
        load_images("cifar10", "test", tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="data_dir: 'imagenet' needs the folder with train/<class>/"):
        load_images("imagenet")
