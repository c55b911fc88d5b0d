"""Scripts from the command line: their help, and what the demo asks of the searches."""

from __future__ import annotations

import runpy
import sys

import pytest
import torch
from PIL import Image

from agents.evaluation.scores import score_masks
from instanas_env.build import build_bandit
from scripts import demo
from tests.tools.pipeline_fixtures import ROOT

SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py") if "__main__" in path.read_text())
"""Files that can be run; the others are parts of them."""


def test_the_pipeline_has_its_verbs():
    pipeline = {"pretrain", "profile", "search", "finetune", "evaluate", "figures"}
    assert pipeline | {"benchmark", "demo", "embed_images", "report"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_says_what_a_script_is_for(name, monkeypatch, capsys):
    """As ``python -m`` runs it, but without a process of its own: that would import torch nine times."""
    path = ROOT / "scripts" / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    first_line = path.read_text().split('"""')[1].splitlines()[0]
    assert first_line in shown
    assert "--help" in shown and "usage:" in shown


@pytest.mark.parametrize("argument", ["--no-such-option", "--epochs=many"])
def test_a_wrong_argument_stops_before_anything_is_written(argument, monkeypatch, capsys, tmp_path):
    path = ROOT / "scripts" / "demo.py"
    monkeypatch.setattr(sys, "argv", [str(path), argument])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert stop.value.code == 2
    assert list(tmp_path.iterdir()) == []
    assert argument.split("=")[0] in capsys.readouterr().err


TINY = {"masks": 4, "menu": 2, "regression_images": 256, "reinforce_images": 256, "stopwatch_images": 6}


def test_the_demo_tells_its_story(tmp_path, capsys, monkeypatch):
    """A row for each policy, six images, the file's stopwatch; a second call learns nothing again."""
    monkeypatch.setenv("COLUMNS", "200")
    demo.main(demo.Options(tmp_path, **TINY))
    shown = capsys.readouterr().out
    for words in (
        "MobileNetV2 alone",
        "best fixed mask",
        "regression, learnt here",
        "REINFORCE, learnt here",
        "REINFORCE, shipped",
    ):
        assert words in shown
    assert "Images that get little" in shown and shown.count(" modules ") == 6
    assert "by the clock" in shown
    with Image.open(tmp_path / "images.png") as picture:
        assert picture.height > 6 * 100
    learnt = (tmp_path / "reinforce_0.safetensors").stat().st_mtime_ns
    demo.main(demo.Options(tmp_path, **TINY))
    assert (tmp_path / "reinforce_0.safetensors").stat().st_mtime_ns == learnt


def test_images_that_get_little_come_first(tmp_path):
    """Three of the fastest and three of the slowest, in order; ties as they stand in the split."""
    bandit = build_bandit(split="val")
    bandit.image_set = bandit.image_set.take(torch.arange(8))
    masks = bandit.space.repair(torch.zeros(8, 17, 5, dtype=torch.bool))
    for i in range(8):
        masks[i, :i] = True  # one cell more for each image
    lines = demo.easy_and_hard(bandit, score_masks(bandit, masks), tmp_path / "images.png")
    counts = [int(line.split(" modules")[0].split()[-1]) for line in lines]
    assert counts == masks.sum((1, 2))[[0, 1, 2, 5, 6, 7]].tolist()
