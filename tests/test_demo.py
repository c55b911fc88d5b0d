"""The demo, small: its rows, its images, its stopwatch."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from agents.evaluation.scores import score_masks
from instanas_env import reward
from instanas_env.build import build_bandit
from instanas_env.storage import load_json
from scripts import demo
from scripts.report.easy_and_hard import easy_and_hard

TINY = {"masks": 4, "menu": 2, "steps": 512, "stopwatch_images": 6}


def test_the_demo_tells_its_story(tmp_path, capsys, monkeypatch):
    """A row for each policy, six images, the file's stopwatch; a second call learns nothing again."""
    monkeypatch.setenv("COLUMNS", "200")
    demo.main(demo.Options(out=tmp_path, **TINY))
    shown = capsys.readouterr().out
    for words in (
        "MobileNetV2 alone",
        "best fixed mask",
        "regression, learnt here",
        "REINFORCE, learnt here",
        "REINFORCE, shipped",
        "REINFORCE, shipped, early exit",
        "MobileNetV2, early exit",
    ):
        assert words in shown
    assert "Images that get little" in shown and shown.count(" modules ") == 6
    assert shown.count("by the clock") == 3
    with Image.open(tmp_path / "images.png") as picture:
        assert picture.height > 6 * 100
    told = load_json(tmp_path / "demo.json")
    alone, bandit = told["MobileNetV2 alone"], build_bandit(split="test")
    within = reward.latency_reward(torch.tensor([alone["latency_ms"]]), bandit.bounds).item()
    # One window for all: right answers earn what the latency is worth in it, wrong ones cost 1.
    assert alone["reward"] == pytest.approx(alone["accuracy"] * within - (1 - alone["accuracy"]))
    assert 0.9 < within < 1
    early, plain = told["REINFORCE, shipped, early exit"], told["REINFORCE, shipped"]
    assert early["latency_ms"] < plain["latency_ms"] and early["answered"] > 0.2
    learnt = (tmp_path / "policies" / "reinforce_0.safetensors").stat().st_mtime_ns
    demo.main(demo.Options(out=tmp_path, **TINY))
    assert (tmp_path / "policies" / "reinforce_0.safetensors").stat().st_mtime_ns == learnt


def test_images_that_get_little_come_first(tmp_path):
    """Three of the fastest and three of the slowest, in order; ties as they stand in the split."""
    bandit = build_bandit(split="val")
    bandit.image_set = bandit.image_set.take(torch.arange(8))
    masks = bandit.space.repair(torch.zeros(8, 17, 5, dtype=torch.bool))
    for i in range(8):
        masks[i, :i] = True  # one cell more for each image
    lines = easy_and_hard(bandit, score_masks(bandit, masks), tmp_path / "images.png")
    counts = [int(line.split(" modules")[0].split()[-1]) for line in lines]
    assert counts == masks.sum((1, 2))[[0, 1, 2, 5, 6, 7]].tolist()
