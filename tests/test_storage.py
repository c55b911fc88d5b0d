"""Files are written whole or not at all, and reading one never runs what somebody hid in it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from instanas_env.storage import (
    ABANDONED_SECONDS,
    load_checkpoint,
    load_json,
    load_weights,
    remove_abandoned,
    save_checkpoint,
    save_json,
    save_weights,
    write_atomic,
)

WEIGHTS = {"one": torch.arange(6.0).reshape(2, 3), "two": torch.tensor([1, 2])}


def test_write_atomic_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "run" / "deep" / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644, "others may read it, though temporary files are private"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "text is not bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_replacement_leaves_no_temporary_file(tmp_path):
    """The last step can fail too: here a folder has the file's name."""
    folder = tmp_path / "name"
    folder.mkdir()
    with pytest.raises(OSError, match="name"):
        write_atomic(folder, b"content")
    assert list(tmp_path.iterdir()) == [folder]


def killed_while_writing(path: Path) -> Path:
    """What is left of a ``write_atomic`` whose process died (here of ``os._exit``) before the renaming."""
    code = "import os, sys; from instanas_env.storage import write_atomic; os.fsync = lambda _: os._exit(1)"
    before = set(path.parent.iterdir())
    command = [sys.executable, "-c", f"{code}; write_atomic(sys.argv[1], b'half')", str(path)]
    assert subprocess.run(command, cwd=Path(__file__).parent.parent).returncode == 1
    (left,) = set(path.parent.iterdir()) - before
    assert left.read_bytes() == b"half" and not path.exists()
    return left


def test_what_a_killed_writer_left_goes_when_it_is_old(tmp_path):
    """A second past its time; one that may still be written to stays, and so does everything of others."""
    (tmp_path / "sub").mkdir()
    old, deep, young = (killed_while_writing(tmp_path / name) for name in ("a.pt", "sub/b.json", "a.pt"))
    others = [tmp_path / name for name in ("a.json", ".a.json.swp", "a.partial", ".hidden")]
    now = time.time()
    for path in others:
        path.touch()
    for path in (old, deep, *others):
        os.utime(path, (now, now - ABANDONED_SECONDS - 1))
    os.utime(young, (now, now - ABANDONED_SECONDS + 60))
    remove_abandoned(tmp_path)
    assert not old.exists() and not deep.exists()
    assert {*tmp_path.iterdir()} == {young, tmp_path / "sub", *others}
    remove_abandoned(tmp_path / "not there")


def test_json_round_trip(tmp_path):
    value = {"epochs": 3, "rates": [0.5, None], "name": "lite"}
    save_json(tmp_path / "a.json", value)
    assert load_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("content", [b'{"cut": ', b"", b"\xff\xfe\x00"], ids=["cut", "empty", "not text"])
def test_what_is_no_json_is_named(tmp_path, content):
    path = tmp_path / "table.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"table\.json"):
        load_json(path)


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path):
    save_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        save_json(tmp_path / "a.json", torch.nn)
    assert load_json(tmp_path / "a.json") == 1


def test_weights_round_trip_with_their_config(tmp_path):
    """Also of tensors that are not contiguous: a meta-graph's weights are channels_last."""
    path, turned = tmp_path / "w.safetensors", WEIGHTS["one"].T
    config = {"width": 0.5, "modules": [0, 2], "record": None}
    save_weights(path, {**WEIGHTS, "turned": turned}, config)
    weights, loaded = load_weights(path)
    assert loaded == config
    assert weights.keys() == {"one", "two", "turned"}
    for name, expected in {**WEIGHTS, "turned": turned}.items():
        assert torch.equal(weights[name], expected) and weights[name].dtype == expected.dtype


@pytest.mark.parametrize("keep", [0, 4, 40, -1], ids=["empty", "length", "header", "byte short"])
def test_truncated_weights_are_named(tmp_path, keep):
    path = tmp_path / "w.safetensors"
    save_weights(path, WEIGHTS, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"w\.safetensors: not a whole weights file"):
        load_weights(path)


@pytest.mark.parametrize("metadata", [None, {"other": "{}"}, {"config": "{not json"}])
def test_safetensors_of_somebody_else_are_named(tmp_path, metadata):
    import safetensors.torch

    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(WEIGHTS, path, metadata)
    with pytest.raises(ValueError, match=r"w\.safetensors: not a whole weights file"):
        load_weights(path)


def test_a_pickle_is_no_weights_file(tmp_path):
    torch.save(WEIGHTS, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors: not a whole weights file"):
        load_weights(tmp_path / "w.safetensors")


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"w\.safetensors: no such weights file"):
        load_weights(tmp_path / "w.safetensors")


def test_checkpoint_round_trip(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], 0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "epoch": 3, "history": [{"loss": 0.5, "val": None}]}
    save_checkpoint(tmp_path / "c.pt", state)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert (loaded["epoch"], loaded["history"]) == (3, [{"loss": 0.5, "val": None}])
    assert loaded["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    assert torch.equal(loaded["optimizer"]["state"][0]["momentum_buffer"], torch.ones(3))


def test_a_bomb_in_a_checkpoint_does_not_go_off(tmp_path):
    """A pickle may call any function on loading; this one makes a folder, and is refused."""
    crater = tmp_path / "crater"
    bomb = type("Bomb", (), {"__reduce__": lambda self: (os.mkdir, (str(crater),))})()
    torch.save({"epoch": bomb}, tmp_path / "c.pt")
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        load_checkpoint(tmp_path / "c.pt")
    assert not crater.exists()
    torch.load(tmp_path / "c.pt", weights_only=False)
    assert crater.exists(), "the bomb is real"


@pytest.mark.parametrize("keep", [0, 3, 500])
def test_a_truncated_checkpoint_is_named(tmp_path, keep):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"weights": torch.zeros(200)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"c\.pt"):
        load_checkpoint(path)
