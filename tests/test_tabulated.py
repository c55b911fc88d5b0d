"""The table of answers: its bits by hand, what is written is read, what is damaged is refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instanas_env.storage import file_fingerprint, load_weights, save_weights
from instanas_env.tabulated import Tabulated, pack
from tests.tools.tables import SPACE, drawn_table, four_images, table_of


def test_the_bits_by_hand():
    """Nine masks take two bytes: the first mask is the first byte's highest bit, the ninth the second's."""
    correct = torch.tensor([[1, 0, 0, 0, 0, 0, 1, 1, 1], [0, 1, 0, 0, 0, 0, 0, 0, 0]]).bool()
    assert pack(correct).tolist() == [[0b10000011, 0b10000000], [0b01000000, 0]]


@given(count=st.integers(1, 40), images=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_bits_survive_packing(count, images, seed):
    correct = np.random.default_rng(seed).random((images, count)) < 0.5
    image_set = replace(four_images()[1], labels=torch.zeros(images).long())
    table = table_of(torch.from_numpy(correct), image_set)
    assert table.correct("val").dtype == bool and np.array_equal(table.correct("val"), correct)


def test_what_is_saved_is_loaded(tmp_path):
    table = drawn_table()
    table.save(tmp_path / "table.safetensors")
    again = Tabulated.load(tmp_path / "table.safetensors")
    assert torch.equal(again.masks, table.masks) and torch.equal(again.latency_ms, table.latency_ms)
    assert np.array_equal(again.correct("val"), table.correct("val"))
    for name in ("space", "images", "dataset", "references", "meta_graph", "latency_table", "record"):
        assert getattr(again, name) == getattr(table, name)
    table.save(tmp_path / "twice.safetensors")
    assert file_fingerprint(tmp_path / "table.safetensors") == file_fingerprint(
        tmp_path / "twice.safetensors"
    )


@given(position=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(tmp_path_factory, position, bit):
    """Anywhere: in the header, the config or the tensors. In the checksum's name it does no harm."""
    table = four_images()[0]
    path = tmp_path_factory.mktemp("flipped") / "table.safetensors"
    table.save(path)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        again = Tabulated.load(path)
    except ValueError as error:
        assert "table.safetensors" in str(error)
    else:
        assert b'"sha256"' not in content
        assert np.array_equal(again.correct("val"), table.correct("val"))
        assert torch.equal(again.masks, table.masks) and torch.equal(again.latency_ms, table.latency_ms)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, c: t.pop("masks"), "lacks 'masks'"),
        (lambda t, c: t.pop("correct.val"), r"lacks 'correct\.val'"),
        (lambda t, c: t.update({"correct.val": t["correct.val"][:, :0]}), r"correct\.val: got torch.uint8"),
        (lambda t, c: t.update({"correct.val": t["correct.val"][0, 0]}), r"correct\.val: got .* \(\); torch"),
        (lambda t, c: t.update({"correct.val": t["correct.val"] | 1}), "beyond the 3 that there are"),
        (lambda t, c: t.update({"masks": t["masks"] * 2}), "masks: got .* of 0 and 1 will do"),
        (lambda t, c: t.update({"masks": t["masks"].to(torch.float8_e4m3fn)}), "masks: got torch.float8"),
        (lambda t, c: t.update({"masks": t["masks"] * 0}), "empty cell that changes shape"),
        (lambda t, c: t.update({"latency_ms": t["latency_ms"] * float("nan")}), "latency_ms: 3 finite"),
        (lambda t, c: t.update({"latency_ms": t["latency_ms"].float()}), "latency_ms: 3 finite float64"),
        (lambda t, c: c.pop("references"), "lacks references"),
        (lambda t, c: c["references"].pop("full"), "lacks full"),
        (lambda t, c: c.update(images={}), "images: got"),
        (lambda t, c: c.update(images={"val": 3}), "images.val: got 3"),
        (lambda t, c: c.update(tabulated="other"), "tabulated: unknown 'other'"),
        (lambda t, c: c.update(search_space={"preset": "cifr"}), "search_space"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, change, message):
    path = tmp_path / "table.safetensors"
    four_images()[0].save(path)
    tensors, config = load_weights(path)
    change(tensors, config)
    save_weights(path, tensors, config)
    with pytest.raises(ValueError, match=rf"table: .*table\.safetensors .*{message}"):
        Tabulated.load(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        Tabulated.load(tmp_path / "absent.safetensors")
    save_weights(tmp_path / "weights.safetensors", {"a": torch.zeros(1)}, {"search_space": SPACE.config})
    with pytest.raises(ValueError, match="not a tabulated environment .*lacks tabulated"):
        Tabulated.load(tmp_path / "weights.safetensors")


def test_unknown_splits_and_references_are_named():
    table = four_images()[0]
    with pytest.raises(ValueError, match="split: unknown 'test'; the table has val"):
        table.correct("test")
    with pytest.raises(ValueError, match="unknown reference 'half'"):
        table.reference("half")
