"""Which files are images, of which class: what archives, scripts and people leave in folders."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest
import torch

from instanas_env.data import image_folder, load_images
from instanas_env.data.image_folder import FolderImages
from tests.tools.data_sets import PUBLIC_PER_CLASS, WNIDS, colour, tiny_imagenet, write

PER_CLASS = {"train": 4, "test": 2}


@pytest.fixture
def root(tmp_path) -> Path:
    """``{train,test}/{cat,dog}``, without a ``val`` of its own."""
    for number, (split, count) in enumerate(PER_CLASS.items()):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                write(tmp_path / split / name / f"{i}.png", colour(number, label, i))
    return tmp_path


def counts(folder: Path, split: str = "test") -> list[int]:
    loaded = load_images("folder", split, folder, 8)
    return loaded.labels.bincount(minlength=len(loaded.classes)).tolist()


def test_hidden_folders_and_what_programs_leave_are_passed_over(root, caplog):
    cat = root / "test" / "cat"
    for place in (cat / ".ipynb_checkpoints", cat / "__MACOSX", cat / "@eaDir", root / "train" / "__MACOSX"):
        place.mkdir()
        shutil.copy(cat / "0.png", place / "0.png")
    shutil.copy(cat / "0.png", cat / "._0.png")
    (root / "test" / ".DS_Store").touch()
    with caplog.at_level(logging.INFO, "instanas_env"):
        assert counts(root) == [2, 2] and counts(root, "train") == [4, 4]
    assert "passed over 5 hidden files and folders" in caplog.messages[0]


def test_linked_folders_and_files_are_followed(root, tmp_path_factory):
    away = tmp_path_factory.mktemp("away") / "dogs"
    shutil.move(root / "test" / "dog", away)
    (root / "test" / "dog").mkdir()
    (root / "test" / "dog" / "part1").symlink_to(away)
    (root / "test" / "dog" / "more.png").symlink_to(away / "0.png")
    assert counts(root) == [2, 3]
    (root / "test" / "dog" / "part1").unlink()
    (root / "test" / "dog" / "more.png").unlink()
    (root / "test" / "dog").rmdir()
    (root / "test" / "dog").symlink_to(away)
    assert counts(root) == [2, 2], "a class that is a link itself"


def test_a_link_in_a_circle_is_read_once(root, caplog):
    (root / "test" / "dog" / "again").symlink_to(root / "test" / "dog")
    with caplog.at_level(logging.INFO, "instanas_env"):
        assert counts(root) == [2, 2]
    assert "1 links to a folder read before" in caplog.text


@pytest.mark.parametrize("name", ["train/dog/part1", "train/dog/9.png", "train/bird", "test/dog/9.png"])
def test_a_link_that_leads_nowhere_is_named(root, name):
    (root / name).symlink_to(root / "not there")
    with pytest.raises(ValueError, match=rf"^data_dir: {root / name} is a link that leads nowhere"):
        load_images("folder", "test", root, 8)


def test_a_link_to_itself_is_named(root):
    (root / "test" / "dog" / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match="^data_dir: .*loop is a link that leads nowhere"):
        load_images("folder", "test", root, 8)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(root):
    (root / "test" / "dog").chmod(0)
    try:
        with pytest.raises(ValueError, match="^data_dir: .*dog cannot be read"):
            load_images("folder", "test", root, 8)
    finally:
        (root / "test" / "dog").chmod(0o755)


def test_a_pipe_is_passed_over_and_not_waited_for(root, caplog):
    os.mkfifo(root / "test" / "dog" / "x.png")
    with caplog.at_level(logging.INFO, "instanas_env"):
        assert counts(root) == [2, 2]
    assert "passed over 1 pipes and devices" in caplog.text


@pytest.mark.parametrize(("wrong", "right"), [("Cat", "cat"), ("dogs", "dog")])
def test_a_test_class_that_train_does_not_know_is_named(root, wrong, right):
    (root / "test" / right).rename(root / "test" / wrong)
    expected = rf"^data_dir: {root}/test/{wrong} is no class of train; rename it, perhaps to {right}, or"
    with pytest.raises(ValueError, match=expected):
        load_images("folder", "test", root, 8)


def test_a_class_without_readable_images_is_named(root):
    for path in (root / "train" / "dog").iterdir():
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(FileNotFoundError, match=rf"^data_dir: no images in {root}/train/dog; .*\.tiff"):
        load_images("folder", "train", root, 8)


def test_a_class_without_test_images_is_a_warning(root, caplog):
    shutil.rmtree(root / "test" / "dog")
    with caplog.at_level(logging.INFO, "instanas_env"):
        assert counts(root) == [2, 0]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "2 images of 1 classes; none of dog" in record.message


def test_one_line_says_what_was_read(root, caplog):
    (root / "test" / "readme.md").touch()
    (root / "test" / "cat" / "notes.txt").touch()
    (root / "test" / "cat" / "LICENSE").touch()
    (root / "test" / "empty").mkdir()
    write(root / "test" / "cat" / "2.png", colour(1, 0, 2))
    with caplog.at_level(logging.INFO, "instanas_env"):
        load_images("folder", "test", root, 8)
        load_images("embedded", "val")
        load_images("embedded", "val", resolution=64)
    assert caplog.messages == [
        f"{root}/test (test): 5 images of 2 classes; resized from 40 x 30 px to 8 x 8 px; passed over"
        " 1 files ending in .txt, 1 files outside of the class folders, 1 files without an ending,"
        " 1 folders without images",
        "embedded (val): 1,000 images of 10 classes; 32 x 32 px",
        "embedded (val): 1,000 images of 10 classes; resized from 32 x 32 px to 64 x 64 px",
    ]


def test_names_that_are_no_utf8_or_hold_anything(root):
    """Folders called as one likes; what the class is called can be printed and written."""
    names = [b"caf\xe9", b"$\\frac{$", b"<b>", "caf\u00e9".encode()]
    for split in PER_CLASS:
        for name in names:
            shutil.copytree(root / split / "cat", root / split / os.fsdecode(name))
    loaded = load_images("folder", "test", root, 8)
    assert set(loaded.classes) == {"cat", "dog", "caf\\xe9", "$\\frac{$", "<b>", "caf\u00e9"}
    assert loaded.labels.bincount().tolist() == [2] * 6
    assert "".join(loaded.classes).encode()


def prepared(root: Path, place: str, keep: bool = False) -> Path:
    """TinyImageNet whose public images a script has put into ``val/<place>``."""
    folder = tiny_imagenet(root)
    images = folder / "val" / "images"
    for i, label in enumerate([2, 0, 1] * PUBLIC_PER_CLASS):
        target = folder / "val" / place.format(WNIDS[label])
        target.mkdir(parents=True, exist_ok=True)
        (shutil.copy if keep else shutil.move)(images / f"val_{i}.JPEG", target / f"val_{i}.JPEG")
    return folder


@pytest.mark.parametrize("notes", [True, False])
@pytest.mark.parametrize("place", ["images/{}", "{}", "{}/images"])
def test_tiny_imagenet_after_the_usual_scripts(tmp_path, place, notes):
    """Folders inside ``images``, or beside it, which stays behind empty; with the annotations or without."""
    folder = prepared(tmp_path, place)
    if not notes:
        (folder / "val" / "val_annotations.txt").unlink()
    loaded = load_images("tiny_imagenet", "test", folder, 64)
    assert loaded.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (loaded.images[:, 1, 32, 32] / 60).round().tolist() == [0, 0, 1, 1, 2, 2]


def test_tiny_imagenet_copied_instead_of_moved_has_each_image_once(tmp_path):
    assert len(load_images("tiny_imagenet", "test", prepared(tmp_path, "{}", keep=True), 64)) == 6


def test_annotations_of_other_systems(tmp_path):
    """CRLF, blank lines and a byte order mark; an image that is missing is named."""
    folder = tiny_imagenet(tmp_path)
    notes = folder / "val" / "val_annotations.txt"
    text = notes.read_text()
    notes.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n \r\n")
    assert load_images("tiny_imagenet", "test", folder, 64).labels.tolist() == [2, 0, 1] * PUBLIC_PER_CLASS
    notes.write_text(text + "val_77.JPEG\tn01443537\t0\t0\t9\t9\n")
    with pytest.raises(ValueError, match=r"names val_77.JPEG, which is not in images/ \(line 7\)"):
        load_images("tiny_imagenet", "test", folder, 64)


def test_a_split_that_is_decoded_on_demand_is_indexed_like_a_tensor(root, monkeypatch):
    """Above 2 GiB; the README's own test.images[0] failed there."""
    eager = load_images("folder", "test", root, 8).images
    monkeypatch.setattr(image_folder, "KEEP_DECODED_BYTES", 0)
    lazy = load_images("folder", "test", root, 8).images
    assert isinstance(lazy, FolderImages) and len(lazy) == len(eager) == 4
    some = [0, -1, slice(1, 3), [3, 0], torch.tensor(2), torch.tensor([True, False, True, False])]
    for index in [*some, slice(0, 0), torch.tensor([[0, 1], [2, 3]])]:
        assert torch.equal(lazy[index], eager[index])
    with pytest.raises(IndexError):
        lazy[4]
    assert torch.equal(torch.stack([*lazy]), eager), "and iterated over"
