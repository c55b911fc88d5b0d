"""A run goes on, is fine-tuned and compared on the images that it was made on, or is refused."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from instanas_env.data import ImageSet
from instanas_env.networks.meta_graph import MetaGraph
from instanas_env.storage import load_json, save_json
from instanas_env.training.bound import IMAGE_SETS, check_same_images, described, difference
from instanas_env.training.run_directory import RunDirectory
from scripts import pretrain
from tests.tools.data_sets import colour, write

GENERATOR = torch.Generator().manual_seed(0)
SET = ImageSet(
    torch.randint(256, (6, 3, 4, 4), generator=GENERATOR).byte(),
    torch.tensor([0, 1, 2, 0, 1, 2]),
    ("blue", "green", "red"),
    (0.5,) * 3,
    (0.2,) * 3,
)
CHANGES = [
    (replace(SET, classes=("green", "red", "zebra")), "the classes are now without blue and with zebra"),
    (replace(SET, classes=(*SET.classes, "white")), "the classes are now with white"),
    (replace(SET, classes=("green", "blue", "red")), "the classes have another order"),
    (replace(SET, labels=SET.labels.flip(0)), "labels or bytes of the images have changed"),
    (replace(SET, images=255 - SET.images), "labels or bytes of the images have changed"),
    (SET.take(torch.arange(5)), "6 images then, 5 now"),
]


def run(path: Path) -> RunDirectory:
    return RunDirectory(path, pretrain.Options(out=path), free=("out", "data_dir"))


@pytest.mark.parametrize(("changed", "told"), CHANGES)
def test_a_run_refuses_other_images_and_says_what_changed(tmp_path, changed, told):
    first = run(tmp_path)
    first.bind(train=SET, val=SET)
    first.claim()
    before = (tmp_path / "config.json").read_bytes()
    again = run(tmp_path)
    with pytest.raises(ValueError, match=rf"^out: {tmp_path} holds a run on other images \(val: {told}\); "):
        again.bind(train=SET, val=changed)
    assert (tmp_path / "config.json").read_bytes() == before
    again.bind(train=SET, val=SET)
    again.claim()
    assert load_json(tmp_path / "config.json") == again.config
    assert again.config[IMAGE_SETS]["train"] == described(SET)


def test_the_same_images_are_the_same():
    assert difference(described(SET), described(replace(SET, images=SET.images.clone()))) is None


def test_a_run_of_an_older_version_takes_the_images_that_come(tmp_path):
    """Nothing is known of its own, so there is nothing to compare; from now on there is."""
    run(tmp_path).claim()
    assert IMAGE_SETS not in load_json(tmp_path / "config.json")
    again = run(tmp_path)
    again.bind(val=SET)
    again.checkpoint({"epoch": 1}, {})
    with pytest.raises(ValueError, match="holds a run on other images"):
        run(tmp_path).bind(val=CHANGES[0][0])


def test_a_run_refuses_another_file_behind_the_same_name(tmp_path):
    """What goes on must read what it began with; a file that nobody named then may come."""
    teacher, other = tmp_path / "teacher", tmp_path / "other"
    teacher.write_bytes(b"weights")
    other.write_bytes(b"weights")
    first = run(tmp_path / "run")
    assert first.read(teacher=teacher, start=None) == {"teacher": hashlib.sha256(b"weights").hexdigest()[:32]}
    first.claim()
    run(tmp_path / "run").read(teacher=other, start=other)  # the bytes count, not the place
    run(tmp_path / "run").claim()
    teacher.write_bytes(b"Weights")
    again = run(tmp_path / "run")
    with pytest.raises(ValueError, match=f"^out: {tmp_path / 'run'} holds a run that read another teacher; "):
        again.read(teacher=teacher)
    with pytest.raises(FileNotFoundError):
        again.read(teacher=tmp_path / "absent")
    again.read(teacher=other)
    again.claim()
    assert load_json(tmp_path / "run" / "config.json") == again.config


def test_a_call_that_binds_no_images_keeps_the_record(tmp_path):
    first = run(tmp_path)
    first.bind(val=SET)
    first.claim()
    run(tmp_path).claim()
    assert load_json(tmp_path / "config.json")[IMAGE_SETS] == {"val": described(SET)}


@pytest.mark.parametrize(("changed", "told"), CHANGES)
def test_a_comparison_refuses_runs_of_other_images(tmp_path, tiny_space, changed, told):
    record = {"options": {"dataset": "folder", IMAGE_SETS: {"val": described(SET)}}}
    MetaGraph(tiny_space, 3).save(tmp_path / "meta_graph.safetensors", record)
    check_same_images([tmp_path], "folder", "val", SET)
    check_same_images([tmp_path], "folder", "test", changed)  # of that split the run says nothing
    with pytest.raises(
        ValueError, match=rf"^data_dir: the val images are not those that {tmp_path} was .*{told}"
    ):
        check_same_images([tmp_path], "folder", "val", changed)


def test_another_data_set_of_the_same_classes_may_be_tried(tmp_path, tiny_space):
    record = {"options": {"dataset": "embedded", IMAGE_SETS: {"val": described(SET)}}}
    MetaGraph(tiny_space, 3).save(tmp_path / "meta_graph.safetensors", record)
    check_same_images([tmp_path], "fashion_mnist", "val", CHANGES[4][0])
    with pytest.raises(ValueError, match="with zebra"):
        check_same_images([tmp_path], "fashion_mnist", "val", CHANGES[0][0])


def test_runs_that_say_nothing_of_their_images_pass(tmp_path, tiny_space):
    for record in (None, {}, {"options": {"dataset": "folder"}}):
        MetaGraph(tiny_space, 3).save(tmp_path / "meta_graph.safetensors", record)
        check_same_images([tmp_path], "folder", "val", SET)


def options(out: Path, data: Path, **changes: object) -> pretrain.Options:
    small = {"search_space": "lite@0.125", "modules": (0,), "epochs": 1, "batch_size": 8}
    return pretrain.Options(out=out, dataset="folder", data_dir=data, **{**small, **changes})


@pytest.fixture
def data(tmp_path) -> Path:
    for label, name in enumerate(("blue", "green")):
        for number in range(10):
            write(tmp_path / "data" / "train" / name / f"{number}.png", colour(0, label, number))
    return tmp_path / "data"


def test_pre_training_is_not_resumed_with_classes_renamed(tmp_path, data, capsys):
    chosen = options(tmp_path / "run", data)
    pretrain.main(chosen)
    assert "18 images of 2 classes; resized from 40 x 30 px to 32 x 32 px" in capsys.readouterr().err
    (data / "train" / "blue").rename(data / "train" / "zebra")
    with pytest.raises(ValueError, match="train: the classes are now without blue and with zebra"):
        pretrain.main(chosen)
    (data / "train" / "zebra").rename(data / "train" / "blue")
    shutil.copytree(data, tmp_path / "moved")
    pretrain.main(replace(chosen, data_dir=tmp_path / "moved"))


def test_a_failed_call_does_not_claim_its_folder(tmp_path, data):
    """The images were missing at first, and the corrected call has other options."""
    with pytest.raises(FileNotFoundError, match="data_dir: no folder"):
        pretrain.main(options(tmp_path / "run", tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError):
        pretrain.main(options(tmp_path / "run", data, teacher=tmp_path / "no.safetensors"))
    assert not (tmp_path / "run").exists()
    pretrain.main(options(tmp_path / "run", data, seed=1))


def test_a_config_that_holds_no_object_is_named(tmp_path):
    save_json(tmp_path / "config.json", {})
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json"):
        run(tmp_path)
