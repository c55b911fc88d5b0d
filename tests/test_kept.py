"""What a killed call has finished is taken as it was, unless it is damaged or depends on something else."""

from __future__ import annotations

import pytest
import torch

from scripts.comparison.kept import Kept, file_name

COMMON = {"files": {"table": "a"}, "limits": (0.5, 1.0)}


class Maker:
    """Makes one more each time."""

    count = 0

    def __call__(self):
        self.count += 1
        return {"tensor": torch.tensor([self.count])}, {"made": [self.count, 0.1]}


def test_it_is_made_once_and_read_back(tmp_path, capsys):
    maker = Maker()
    first = Kept(tmp_path / "parts", COMMON).get("a part", {"n": 1}, maker)
    second = Kept(tmp_path / "parts", COMMON).get("a part", {"n": 1}, maker)
    assert maker.count == 1 and capsys.readouterr().out == "a part: kept from an earlier call\n"
    for tensors, made in (first, second):
        assert tensors["tensor"].tolist() == [1] and made == {"made": [1, 0.1]}


@pytest.mark.parametrize(
    ("common", "depends"),
    [(COMMON, {"n": 2}), (COMMON, {}), ({**COMMON, "files": {"table": "b"}}, {"n": 1}), ({}, {"n": 1})],
)
def test_what_depends_on_something_else_is_made_anew(tmp_path, common, depends):
    maker = Maker()
    Kept(tmp_path, COMMON).get("part", {"n": 1}, maker)
    assert Kept(tmp_path, common).get("part", depends, maker)[1] == {"made": [2, 0.1]}
    assert Kept(tmp_path, common).get("part", depends, maker)[1] == {"made": [2, 0.1]}


@pytest.mark.parametrize("damage", [lambda content: content[:-3], lambda content: content[:-1] + b"\xff"])
def test_what_was_damaged_is_made_anew(tmp_path, damage):
    maker, kept = Maker(), Kept(tmp_path, COMMON)
    kept.get("part", {}, maker)
    file = tmp_path / "part.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    assert kept.get("part", {}, maker)[1] == {"made": [2, 0.1]}


def test_discarding_leaves_what_is_of_others(tmp_path):
    kept = Kept(tmp_path / "parts", {})
    kept.get("a", {}, Maker())
    kept.get("b", {}, Maker())
    (tmp_path / "parts" / "mine.txt").write_text("mine")
    kept.discard()
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["mine.txt"]
    again = Kept(tmp_path / "other", {})
    again.get("a", {}, Maker())
    again.discard()
    assert not (tmp_path / "other").exists()


def test_a_name_of_any_length_has_a_file_and_equal_files_are_told_apart(tmp_path):
    kept, maker = Kept(tmp_path, {}), Maker()
    for made, name in ((1, "a/" * 300 + "x"), (2, "a_" * 300 + "x")):
        assert kept.get(name, {}, maker)[1]["made"][0] == made


def test_names_are_those_of_files():
    assert file_name("search runs/a b.c-d_1") == "search_runs_a_b.c-d_1"
