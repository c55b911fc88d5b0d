"""Files are written whole or not at all, and reading one never runs what somebody hid in it."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch

from instanas_env.storage import (
    check_weights,
    load_checkpoint,
    load_json,
    load_json_lines,
    load_weights,
    save_checkpoint,
    save_json,
    save_weights,
)

WEIGHTS = {"one": torch.arange(6.0).reshape(2, 3), "two": torch.tensor([1, 2])}


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
    save_json(tmp_path / "a.json", {"one": 1})
    for value in ({"module": torch.nn}, [1], 1):
        with pytest.raises(TypeError):
            save_json(tmp_path / "a.json", value)
    assert load_json(tmp_path / "a.json") == {"one": 1}


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
    with pytest.raises(FileNotFoundError, match=r"w\.safetensors: no such file"):
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


# --- a flipped bit ---------------------------------------------------------------------------------------


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_of_json_is_found(tmp_path):
    """Or changes nothing: JSON has white space to spare."""
    path, value = tmp_path / "a.json", {"modules": [[0.5, 12]], "unit": "ms", "on": True, "none": None}
    save_json(path, value)
    content = path.read_bytes()
    found = 0
    for bit in range(8 * len(content)):
        path.write_bytes(flipped(content, bit))
        try:
            assert load_json(path) == value, f"bit {bit}"
        except ValueError as error:
            assert str(error).startswith(str(path))
            found += 1
    assert found > 7 * len(content)


def test_json_laid_out_anew_is_the_same(tmp_path):
    """Somebody's editor or git changed the ends of lines; and JSON without a checksum is read as it is."""
    path, value = tmp_path / "a.json", {"name": "caf\udce9 $\\frac{$", "rate": 0.1 + 0.2}
    save_json(path, value)
    written = json.loads(path.read_text())
    path.write_bytes(json.dumps(written, indent=4).replace("\n", "\r\n").encode())
    assert load_json(path) == value
    path.write_text(json.dumps(value))
    assert load_json(path) == value
    path.write_text(json.dumps({**written, "rate": 0.3}))
    with pytest.raises(
        ValueError, match=r"a\.json: changed since .*if that was you, remove its entry 'sha256'"
    ):
        load_json(path)


@pytest.mark.parametrize(("kind", "stride"), [("checkpoint", 131), ("weights", 5)])
def test_flipped_bits_of_tensors_are_found(tmp_path, kind, stride):
    """Every bit in every byte in turn; a test of all takes a minute and passes."""
    path = tmp_path / "file"
    save = {"checkpoint": save_checkpoint, "weights": lambda p, w: save_weights(p, w, {"epoch": 3})}[kind]
    load = {"checkpoint": load_checkpoint, "weights": load_weights}[kind]
    save(path, {"one": torch.arange(3.0)})
    content = path.read_bytes()
    passed = []
    for bit in range(0, 8 * len(content), stride):
        path.write_bytes(flipped(content, bit))
        try:
            load(path)
            passed.append(bit)
        except ValueError as error:
            assert str(error).startswith(str(path)), bit
    if kind == "checkpoint":
        assert not passed
    else:  # the name of the checksum's field, without which the file is like one of an earlier version
        key = content.index(b"sha256")
        assert all(key <= bit // 8 < key + 6 for bit in passed), [content[b // 8] for b in passed]


# --- hostile files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_json, load_checkpoint, load_weights, load_json_lines])
def test_folders_and_pipes_are_named_and_nothing_waits(tmp_path, load):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("folder", "a folder"), ("pipe", "a pipe")):
        with pytest.raises(ValueError, match=rf"{name}: .*{kind}"):
            load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="absent: no such"):
        load(tmp_path / "absent")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("[" * 100_000, "nested deeper"),
        ('{"a":' * 70 + "1" + "}" * 70, "nested deeper"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ("[]", r"got \[\]; an object will do"),
        ("9" * 5000, "not a JSON file"),
    ],
)
def test_hostile_json_is_named(tmp_path, content, what):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=rf"a\.json: .*{what}"):
        load_json(tmp_path / "a.json")


def test_a_history_names_its_bad_line(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"epoch": 1}\n\n{"epoch": 2}\n')
    assert load_json_lines(path) == [{"epoch": 1}, {"epoch": 2}]
    path.write_text('{"epoch": 1}\n{"epo')
    with pytest.raises(ValueError, match=r"history\.jsonl, line 2: not a JSON file"):
        load_json_lines(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"one": torch.tensor([1.0, float("nan")])}, "NaN or inf in one"),
        ({"one": torch.tensor([1.0, float("inf")])}, "NaN or inf in one"),
        ({"bn.running_var": torch.tensor([-1.0])}, "negative variance in bn.running_var"),
        ({"one": torch.zeros(2).half()}, r"one is torch.float16 \(2,\); torch.float32 \(2,\) will do"),
        ({"one": torch.zeros(3)}, r"one is torch.float32 \(3,\)"),
        ({"more": torch.zeros(1)}, "'more'"),
    ],
)
def test_weights_that_no_network_can_have_are_named(change, what):
    good = {"one": torch.zeros(2), "bn.running_var": torch.ones(1)}
    expected = {**good, "bn.num_batches_tracked": torch.tensor(0)}
    check_weights(good, {name: tensor.to("meta") for name, tensor in expected.items()}, "w: the file")
    with pytest.raises(ValueError, match=f"w: the file .*{what}"):
        check_weights({**good, **change}, expected, "w: the file")


def test_the_same_weights_are_the_same_bytes(tmp_path):
    """safetensors writes its metadata in a random order: six files in a row would differ."""
    weights = {"a": torch.ones(2), "b": torch.zeros(3, 5)}
    written = set()
    for _ in range(6):
        save_weights(tmp_path / "a", weights, {"name": "caf\u00e9 \\udce9"})
        written.add((tmp_path / "a").read_bytes())
    assert len(written) == 1
    loaded, config = load_weights(tmp_path / "a")
    assert config == {"name": "caf\u00e9 \\udce9"}
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())
