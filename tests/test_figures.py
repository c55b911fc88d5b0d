"""Every figure can be drawn from a few rows, is not blank, and is the same twice."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from agents.evaluation.image_record import Choices, ImageRecord
from scripts.report.figures import frontier, latency_histogram, module_usage
from scripts.report.figures_by_image import (
    architecture_map,
    from_easy_to_hard,
    images_by_class,
    images_shown,
    module_grid,
)
from scripts.report.figures_search import choice_of_picks, estimate, load_search_history, search_course
from scripts.report.pictures import STYLE, saved
from scripts.report.run_files import claimed
from tests.tools.pipeline_fixtures import ROOT

MASKS = ["1" + "0" * 84, "11" + "0" * 83, "1" * 85]


def row(policy: str, group: str, networks: list[int]) -> dict[str, Any]:
    """A learned policy; ``networks`` are the images of each of :data:`MASKS`, which take 1, 2 and 3 ms."""
    counts = zip(MASKS, (1.0, 2.0, 3.0), networks, strict=False)
    listed = [{"mask": mask, "latency_ms": ms, "images": images} for mask, ms, images in counts]
    return {"policy": policy, "seed": 0, "group": group, "masks": listed}


def line(policy: str, group: str, latency_ms: float, networks: int = 1, **more: Any) -> dict[str, Any]:
    """A policy's means."""
    means = {"accuracy": (0.85, 0.8, 0.9), "latency_ms": (latency_ms, None, None)}
    return {"policy": policy, "group": group, **means, "networks": (networks, None, None), **more}


CROSS = {"shuffled_accuracy": (0.82, None, None)}
LINES = [line("MobileNetV2", "fixed", 2.0), line("ours", "ours", 1.9, 3, **CROSS), line("one", "one", 1.0)]
ROWS = [row("ours", "ours", [3, 6, 3]), row("one", "one", [12])]
NETWORK = torch.tensor([0, 1, 2] * 2 + [1, 1, 0, 1, 2, 1])
RECORD = ImageRecord(
    label=torch.arange(12) % 2,
    sample=torch.arange(12),
    thumbnails=(torch.arange(12 * 64).reshape(12, 1, 8, 8) % 256).to(torch.uint8),
    classes=("cat", "<b>dog"),
    policies={"ours": Choices(NETWORK, torch.ones(12, dtype=torch.uint8))},
)
OURS = (ROWS[0], RECORD.policies["ours"], RECORD)
EPOCHS = [
    {
        "epoch": epoch,
        "latency_ms": 2.0,
        "lower_ms": 1.0,
        "upper_ms": 4.0 - epoch,
        "val": {"accuracy": 0.8, "shuffled_accuracy": 0.7, "latency_ms": 2.0, "networks": 3},
    }
    for epoch in (1, 2)
]
POINTS = [{"latency_ms": ms, "accuracy": 0.5 + ms / 10} for ms in (1.0, 2.0, 3.0)]
PICKS = {"points": POINTS, "frontier": [2, 1, 0], "picks": {"A": 2, "B": 0}}
MEASURED = {"table": "a table", "correlation": 0.99, "median_relative_error": 0.04}
FIGURES = {
    "frontier": lambda: frontier(LINES),
    "no latency": lambda: frontier([*LINES, line("free", "fixed", 0.0)]),
    "alone": lambda: frontier(LINES[1:2]),
    "latency": lambda: latency_histogram(LINES, ROWS),
    "modules": lambda: module_usage(ROWS),
    "images": lambda: images_by_class(*OURS),
    "map": lambda: architecture_map(*OURS),
    "search": lambda: search_course("a run", EPOCHS),
    "picks": lambda: choice_of_picks("a run", PICKS),
    "estimate": lambda: estimate({**MEASURED, "estimated_ms": [1.0, 2.0], "real_ms": [1.1, 1.9]}),
}


def drawn(name: str) -> bytes:
    with matplotlib.rc_context(STYLE):
        return saved(FIGURES[name](), "png")


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_and_is_the_same_twice(name):
    picture = drawn(name)
    with Image.open(io.BytesIO(picture)) as image:
        pixels = np.asarray(image.convert("RGB"))
    ink = (pixels < 240).any(2)
    assert ink.mean() > 0.005 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert not ink[:3].any() and not ink[:, :3].any() and not ink[:, -3:].any(), "drawn over the edge"
    assert drawn(name) == picture


def test_settings_are_joined_from_fast_to_slow_and_fixed_ones_are_not():
    lines = [line(f"{group} {ms}", group, ms) for group in ("fixed", "static") for ms in (3.0, 1.0, 2.0)]
    (axes,) = frontier(lines).axes
    joined = [list(drawn.get_xdata()) for drawn in axes.lines if len(drawn.get_xdata()) == 3]
    assert joined == [[1.0, 2.0, 3.0]]


def test_a_cross_tells_what_a_policy_is_worth_when_its_masks_are_exchanged():
    """For policies of several networks that look at images: at the same time, 82 % instead of 85 %."""
    others = [line("one", "b", 1.0, 1, **CROSS), line("random half", "fixed", 3.0, 9, **CROSS)]
    (axes,) = frontier([line("ours", "a", 2.0, 3, **CROSS), *others]).axes
    marks = [mark.get_marker() for mark in axes.lines if mark.get_gid()]
    assert marks == ["o"] * 3
    crosses = [mark.get_xydata().tolist() for mark in axes.lines if mark.get_marker() == "x"]
    assert [[[ms, round(y, 6)] for ms, y in cross] for cross in crosses if cross] == [[[2.0, 82.0]]]
    (axes,) = frontier(LINES[:1]).axes
    assert "x" not in [mark.get_marker() for mark in axes.lines]


def test_the_usage_of_modules_counts_images():
    """The first module of the first cell is on for all 12 images, the second for 9, the last for 3."""
    shares = module_usage(ROWS[:1]).axes[0].images[0].get_array()
    assert shares.shape == (5, 17)
    assert (shares[0, 0], shares[1, 0], shares[4, 16]) == (1, 9 / 12, 3 / 12)


def test_images_from_easy_to_hard():
    """Class 0 has latencies 1, 3, 2, 6, mean 3; its sampled images 0, 2, 3 are -2/3, -1/3 and +1."""
    latency = np.array([1.0, 3.0, 2.0, 6.0, 5.0])
    chosen = from_easy_to_hard(latency, np.array([0, 0, 0, 0, 1]), np.array([3, 0, 4, 2]))
    assert [position for position, _ in chosen[0]] == [1, 3, 0]
    assert [relative for _, relative in chosen[0]] == pytest.approx([-2 / 3, -1 / 3, 1])
    assert chosen[1] == [(2, 0.0)]
    free = from_easy_to_hard(np.zeros(2), np.zeros(2, int), np.array([0, 1]))
    assert free[0] == [(0, -1.0), (1, -1.0)], "the controller answers all of the class"


def test_six_images_with_the_networks_that_they_got():
    shown = images_shown(*OURS)
    assert [image["ms"] for image in shown] == ["1.00", "1.00", "2.00", "2.00", "3.00", "3.00"]
    assert [image["modules"] for image in shown[::2]] == ["1 of 85", "2 of 85", "85 of 85"]


def test_a_grid_has_a_column_for_each_cell_and_a_line_for_each_module():
    """Module 3 of the last cell is on: line 3, column 16, of squares of 8 pixels."""
    mask = np.zeros(85)
    mask[16 * 5 + 3] = 1
    squares = module_grid(mask)[4::8, 4::8].astype(int)
    assert squares.shape == (5, 17, 3)
    blue = (squares[..., 2] > squares[..., 0] + 50).nonzero()
    assert [place.tolist() for place in blue] == [[3], [16]]


def test_the_page_is_about_the_users_policy_whatever_it_is_worth():
    shipped, mine = row("best (shipped)", "a", [6, 6]), row("mine", "b", [6, 6])
    assert claimed([shipped, mine]) is mine and claimed([shipped]) is shipped
    assert claimed([row("one", "c", [12]), shipped]) is shipped, "one network for all is not the idea"
    most, tuned = row("most", "d", [4, 4, 4]), row("r_finetuned_A", "e", [6, 6])
    pairs = [{"policy": "r_finetuned_A", "over": f"fixed_alone_{name}"} for name in ("r_B", "r_A")]
    assert claimed([most, tuned], pairs) is tuned and claimed([most, tuned], pairs[:1]) is most


def test_a_history_of_something_else_is_no_search(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"epoch": 1, "loss": 0.3, "val": {"policy": 0.8}}\n')
    assert load_search_history(path) == []
    path.write_text('{"epoch": 1, "lo')
    with pytest.raises(ValueError, match="line 1: not a JSON file"):
        load_search_history(path)


def test_no_verb_needs_matplotlib_before_it_draws():
    """It is an extra; a process of its own, since this one has drawn."""
    program = (
        "import sys, scripts.evaluate, scripts.experiment.run, scripts.report.run_report;"
        " sys.exit(bool({'matplotlib', 'jinja2'} & (set(sys.modules) - KNOWN)))"
    )
    # torch may bring Jinja2 by itself.
    known = "import torch, torch.fx, onnxruntime, sys; KNOWN = set(sys.modules); "
    assert subprocess.run([sys.executable, "-c", known + program], cwd=ROOT, check=False).returncode == 0
