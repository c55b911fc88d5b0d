"""Figures come from the results file alone, and are not empty."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instanas_env.build import shipped
from instanas_env.storage import save_json
from scripts.report.figures import Options, draw_estimate, draw_figures, main
from tests.tools.pipeline_fixtures import ROOT, evaluated, read_strictly

# In three epochs the window falls faster than a controller can follow; that is what the warning is for.
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")

NAMES = [f"figure_{name}.png" for name in ("frontier", "latency", "modules", "map")]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_a_comparison_draws_its_figures():
    found = sorted(path.name for path in evaluated().glob("*.png"))
    assert found == sorted(NAMES)
    pictures = [pixels(evaluated() / name) for name in NAMES]
    for picture in pictures:
        assert min(picture.shape[:2]) > 300
        drawn = (picture != 255).any(2)
        assert drawn.mean() > 0.005, "a blank picture is white everywhere"
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    assert len({picture.tobytes() for picture in pictures}) == 4


def test_the_json_alone_is_enough(tmp_path, capsys):
    """Copied to a place without anything else, it gives the same pictures; their paths are printed."""
    copy = tmp_path / "elsewhere" / "results.json"
    copy.parent.mkdir()
    copy.write_bytes((evaluated() / "results.json").read_bytes())
    main(Options(copy, tmp_path / "new" / "folder"))
    assert capsys.readouterr().out.split() == [str(tmp_path / "new" / "folder" / name) for name in NAMES]
    for name in NAMES:
        assert (pixels(tmp_path / "new" / "folder" / name) == pixels(evaluated() / name)).all()


def comparison_with(**changes) -> list[dict]:
    """The fixed policies, and the row of REINFORCE with changes."""
    rows = read_strictly(evaluated() / "results.json")["policies"]
    (learned,) = [row for row in rows if row["name"] == "reinforce"]
    return [row for row in rows if row["group"] == "fixed"] + [{**learned, **changes}]


def test_without_controllers_there_is_the_frontier_alone(tmp_path):
    fixed = [row for row in comparison_with() if row["networks"] is None]
    save_json(tmp_path / "results.json", {"policies": fixed})
    assert draw_figures(tmp_path / "results.json", tmp_path) == [tmp_path / NAMES[0]]


def test_one_network_for_all_images_can_be_drawn(tmp_path):
    """A controller that has collapsed: one bar, and one dot on the map."""
    networks = [{**comparison_with()[-1]["networks"][0], "images": 40}]
    save_json(tmp_path / "results.json", {"policies": comparison_with(networks=networks)})
    assert [path.name for path in draw_figures(tmp_path / "results.json", tmp_path)] == NAMES
    assert all((pixels(tmp_path / name) != 255).any() for name in NAMES)


def test_a_network_of_no_latency_can_be_drawn(tmp_path):
    """On a busy machine the fit may leave nothing for the cheapest one; a log axis has no 0."""
    rows = comparison_with()
    (cheapest,) = [row for row in rows if row["name"] == "cheapest path"]
    cheapest["latency_ms"] = 0.0
    save_json(tmp_path / "results.json", {"policies": rows})
    assert [path.name for path in draw_figures(tmp_path / "results.json", tmp_path)] == NAMES


def test_a_run_called_unshuffled_is_not_a_shuffled_control(tmp_path):
    """``--shuffle off`` may well be written to ``runs/unshuffled``."""
    rows = comparison_with(name="unshuffled", group="unshuffled")
    save_json(tmp_path / "results.json", {"policies": rows})
    assert [path.name for path in draw_figures(tmp_path / "results.json", tmp_path)] == NAMES


def test_estimated_against_real_latency_is_drawn_from_the_table_alone(tmp_path):
    """Figure 4 of the shipped table: its dots are there, so the picture has their blue."""
    draw_estimate(shipped("latency.json"), tmp_path / "estimate.png")
    colours = pixels(tmp_path / "estimate.png").reshape(-1, 3)
    assert (colours == (31, 119, 180)).all(1).any()  # matplotlib's C0, #1f77b4


def test_no_script_needs_matplotlib_before_it_draws():
    """It is an extra; a process of its own, since this one has drawn."""
    program = "import sys, `instanas demo`, scripts.report.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
