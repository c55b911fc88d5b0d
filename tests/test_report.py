"""The report: every figure from files alone, a page that loads nothing, notes for what is missing."""

from __future__ import annotations

import functools
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from instanas_env.build import shipped
from instanas_env.storage import load_json, save_json
from scripts import evaluate, search
from scripts.comparison.image_record import ImageRecord
from scripts.comparison.policy_table import difference, signed, table_rows
from scripts.report.architecture_map import pictures_of_networks
from scripts.report.figures import log_ticks
from scripts.report.figures_by_image import from_easy_to_hard, widest_of_each_group
from scripts.report.figures_search import load_search_history
from scripts.report.run_report import Options, Report, main, write_report
from scripts.report.svg_charts import frontier, linear_ticks
from tests.tools.pipeline_fixtures import home, image_folder, read_strictly, search_options

# In two epochs the window falls faster than a controller can follow; that is what the warning is for.
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")

SECTIONS = ["frontier", "table", "latency", "modules", "images", "map", "search", "estimate"]
VOID = {"meta", "img", "br", "wbr", "link", "input", "hr"}


class Page(HTMLParser):
    """A page taken apart: elements with their attributes, and the texts of titles, of h2 and of code."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {"title": [], "code": [], "td": [], "script": [], "style": []}
        self.feed(self.source)
        self.close()
        assert self.open == [], "elements left open"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag in self.texts:
            self.texts[tag].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if self.open and self.open[-1] in self.texts:
            self.texts[self.open[-1]][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def with_class(self, name: str) -> list[dict[str, str]]:
        return [attributes for _, attributes in self.elements if name in attributes.get("class", "").split()]

    def sections(self, missing: bool) -> list[str]:
        return [s["id"] for s in self.all("section") if ("missing" in s.get("class", "")) is missing]


@functools.cache
def run() -> Path:
    """A directory as the demo leaves it: a search, and a comparison of the controllers of the package."""
    out = home() / "report <run>"
    search.main(search_options(out / "reinforce", "reinforce", {"samples_per_image": 1}, epochs=2))
    chosen = {"dataset": "folder", "data_dir": image_folder(), "dial": (0.6,), "one_shot_limits": (1.0,)}
    few = {"one_shot_masks": 5, "control_masks": 2, "control_networks": 3}
    evaluate.main(evaluate.Options(out, time_real=False, **few, **chosen))
    return out


@functools.cache
def reported() -> Path:
    """The page of :func:`run`, in a directory of its own. No network may be run for it."""
    options = Options(run(), home() / "report" / "page.html")
    refusal = AssertionError("a module was called")
    with mock.patch.object(torch.nn.Module, "__call__", side_effect=refusal):
        return write_report(options)


def rows() -> list[dict]:
    return read_strictly(run() / "results.json")["policies"]


def only(tmp_path: Path, **files: Path) -> Path:
    """A run with some files only."""
    for name, source in files.items():
        shutil.copy(source, tmp_path / name.replace("__", "."))
    return tmp_path


# --- the whole page ------------------------------------------------------------------------------


def test_every_figure_is_on_the_page():
    page = Page(reported())
    assert page.sections(missing=False) == SECTIONS and page.sections(missing=True) == []
    links = [attributes["href"].removeprefix("#") for attributes in page.all("a")]
    assert links == SECTIONS


def test_every_figure_is_a_png_too_and_none_is_blank():
    names = ["estimate", "frontier", "images_1", "latency", "map", "modules", "search", "table"]
    found = sorted(reported().parent.glob("*.png"))
    assert [path.name for path in found] == [f"figure_{name}.png" for name in names]
    for path in found:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert (pixels != 255).any(2).mean() > 0.005, path.name
        assert not (pixels[:2] != 255).any() or path.stem == "figure_table", "drawn over the edge"


def test_the_page_loads_nothing():
    """No address at all, and a policy that would forbid the browser to follow one."""
    page = Page(reported())
    assert "http://" not in page.source and "https://" not in page.source
    assert not page.all("link") and all("src" not in script for script in page.all("script"))
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert set(re.findall(r"url\((.{5})", page.source)) == {"data:"} and "@import" not in page.source
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")


def test_pictures_say_what_they_show():
    page = Page(reported())
    assert (
        len(page.all("img")) == 5 and len(page.all("svg")) == 2
    )  # the map of one policy: the other has one network
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    assert all(len(picture["aria-label"]) > 20 for picture in page.all("svg"))


def test_nothing_is_wider_than_the_screen():
    """Tables and wide pictures stand in a box that scrolls; widths in pixels are those of thumbnails."""
    page = Page(reported())
    boxes = [attributes for attributes in page.with_class("box")]
    assert len(boxes) == len(page.all("img")) + len(page.all("table"))
    assert ".box{overflow-x:auto}" in page.source
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    assert all("width" not in attributes for _, attributes in page.elements)
    style = "".join(page.texts["style"])
    assert {width for width in re.findall(r"[^-]width:(\d+)px", style)} == {"48"}
    assert {int(width) for width in re.findall(r"[^-]width:(\d+)%", style)} == {100}


def test_a_name_is_text_and_never_markup(tmp_path):
    """``report <run>`` is the run's name; a policy may have a worse one."""
    assert "report <run>" not in reported().read_text() and "report &lt;run&gt;" in reported().read_text()
    bad = {**rows()[0], "name": '<script>alert("x")</script>', "group": "<b>"}
    save_json(tmp_path / "results.json", {"policies": [rows()[0], bad]})
    page = Page(write_report(Options(tmp_path)))
    assert len(page.all("script")) == 1 and not page.all("b")
    assert bad["name"] in page.texts["td"]


# --- hovering ------------------------------------------------------------------------------------


def test_every_mark_has_a_title_and_every_policy_a_mark():
    page = Page(reported())
    titles = page.texts["title"][1:]  # the first is that of the page
    assert len(titles) == len(page.with_class("mark")) and all(titles)
    assert sorted(title.splitlines()[0] for title in titles if "\n" in title) == sorted(
        row["name"] for row in rows()
    )
    full = next(row for row in rows() if row["name"] == "full meta-graph")
    shown = next(title for title in titles if title.startswith("full meta-graph"))
    assert shown.splitlines()[1].startswith(f"{100 * full['accuracy']:.1f} % (")
    assert shown.splitlines()[2:] == [f"{full['latency_ms']:.2f} ms", "1 network"]


def test_pictures_of_a_network_are_of_images_that_got_it():
    record = ImageRecord.load(run() / "images.safetensors")
    (row,) = [r for r in rows() if r["networks"] and len(r["networks"]) > 1 and "shuffled" not in r["name"]]
    shown = pictures_of_networks(row, record)
    assert sorted(sum(shown, [])) == list(range(40)), "each of the 40 thumbnails once"
    assert [len(pictures) for pictures in shown] == [network["images"] for network in row["networks"]]
    for network, pictures in enumerate(shown):
        assert (record.policies[row["name"]].network[record.sample[pictures]] == network).all()
    on_page = [set(mark["data-i"].split(",")) for mark in Page(reported()).with_class("seen")]
    assert len(on_page) == len(row["networks"])
    assert all(marks <= set(map(str, range(40))) for marks in on_page)


# --- missing inputs ------------------------------------------------------------------------------


def test_an_empty_run_says_what_would_fill_it(tmp_path):
    """The shipped table's record is always there."""
    page = Page(write_report(Options(tmp_path)))
    assert page.sections(missing=True) == SECTIONS[:-1] and page.sections(missing=False) == ["estimate"]
    commands = [f"instanas evaluate --out {tmp_path}"] * 6
    assert page.texts["code"] == [*commands, f"instanas search --out {tmp_path / 'search'}"]


def test_a_comparison_without_networks_has_its_frontier_and_table(tmp_path):
    """Of fixed policies only, or made before networks were listed."""
    results = load_json(run() / "results.json")
    policies = [{**row, "networks": None} for row in results["policies"]]
    save_json(tmp_path / "results.json", {**results, "policies": policies})
    page = Page(write_report(Options(tmp_path)))
    assert page.sections(missing=False) == ["frontier", "table", "estimate"]
    assert page.texts["code"][0].startswith(f"instanas evaluate --out {tmp_path} --dataset folder")
    assert len(page.all("tr")) - 1 == sum(not row["name"].endswith(", shuffled") for row in policies)


def test_without_the_record_of_images_the_map_has_no_pictures(tmp_path):
    page = Page(write_report(Options(only(tmp_path, results__json=run() / "results.json"))))
    assert page.sections(missing=True) == ["images", "search"]
    assert page.with_class("mark") and not page.with_class("seen")


def test_a_search_alone_shows_its_course(tmp_path):
    page = Page(write_report(Options(run() / "reinforce", tmp_path / "page.html")))
    assert page.sections(missing=False) == ["search", "estimate"]


def test_the_command_names_the_controllers_of_the_run(tmp_path):
    (tmp_path / "reinforce").mkdir()
    shutil.copy(run() / "reinforce" / "controller.safetensors", tmp_path / "reinforce")
    command = Page(write_report(Options(tmp_path))).texts["code"][0]
    assert command == f"instanas evaluate --out {tmp_path} --runs {tmp_path / 'reinforce'}"


def test_a_record_of_another_comparison_is_not_used(tmp_path):
    """One image more for the first network than the record has."""
    report = Report(Options(run()), tmp_path)
    for row in report.learned:
        row["networks"][0]["images"] += 1
    (section,) = report.by_image()
    assert section.body is None and "another comparison" in section.missing
    assert all(
        pictures_of_networks(row, report.record) == [[]] * len(row["networks"]) for row in report.learned
    )


def test_a_table_without_a_record_of_children(tmp_path):
    content = load_json(shipped("latency.json"))
    save_json(tmp_path / "latency.json", {**content, "record": {}})
    page = Page(write_report(Options(tmp_path)))
    assert page.texts["code"][-1] == f"instanas profile --out {tmp_path / 'latency.json'}"


def test_errors_name_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="run: .*nowhere is no directory"):
        write_report(Options(tmp_path / "nowhere"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[plots\]"'):
        write_report(Options(tmp_path, tmp_path / "new" / "page.html"))
    assert list(tmp_path.iterdir()) == []


def test_main_says_where(tmp_path, capsys):
    main(Options(tmp_path))
    assert capsys.readouterr().out == f"wrote {tmp_path / 'report.html'}, and its figures beside it\n"


# --- the arithmetic ------------------------------------------------------------------------------


def test_the_table_compares_with_mobilenet_v2_and_with_the_control():
    """2 ms of 4 are 50 % less; 0.9 - 0.88 are 2.0 points."""
    common = {"accuracy_low": 0.85, "accuracy_high": 0.95, "architectures": 1200}
    controls = {
        "static": {"gain": {"difference": 0.005, "low": -0.01, "high": 0.02}},
        "shuffled": {"gain": {"difference": 0.03, "low": 0.0, "high": 0.04}},
        "oracle": {"any_right": 0.98},
    }
    policies = [
        {"name": "MobileNetV2 trained alone", "accuracy": 0.9, "latency_ms": 4.0, **common},
        {"name": "a", "accuracy": 0.9, "latency_ms": 2.0, **common},
        {"name": "c", "accuracy": 0.9, "latency_ms": 2.0, **common, "controls": controls},
        {"name": "a, shuffled", "accuracy": 0.88, "latency_ms": 2.0, **common},
        {"name": "b", "accuracy": 0.7, "latency_ms": 5.0, **common},
    ]
    interval = "0.5 (\N{MINUS SIGN}1.0 to 2.0)"
    assert table_rows(policies) == [
        ("MobileNetV2 trained alone", "90.0", "85.0 to 95.0", "4.00", "0 %", "1,200", "", "", ""),
        ("a", "90.0", "85.0 to 95.0", "2.00", "\N{MINUS SIGN}50 %", "1,200", "", "2.0", ""),
        (
            "c",
            "90.0",
            "85.0 to 95.0",
            "2.00",
            "\N{MINUS SIGN}50 %",
            "1,200",
            interval,
            "3.0 (0.0 to 4.0)",
            "98.0",
        ),
        ("b", "70.0", "85.0 to 95.0", "5.00", "+25 %", "1,200", "", "", ""),
    ]
    assert [row[4] for row in table_rows(policies[1:])] == ["", "", ""], "nothing to compare with"


def test_signs():
    assert [signed(value, 1) for value in (0.04, -0.04, 1.26, -1.26)] == [
        "0.0",
        "0.0",
        "1.3",
        "\N{MINUS SIGN}1.3",
    ]
    assert difference(1.004) == "0 %" and difference(2) == "+100 %"


def test_images_from_easy_to_hard():
    """Class 0 has latencies 1, 3, 2, 6, mean 3; its sampled images 0, 2, 3 are -2/3, -1/3 and +1."""
    latency = np.array([1.0, 3.0, 2.0, 6.0, 5.0])
    chosen = from_easy_to_hard(latency, np.array([0, 0, 0, 0, 1]), np.array([3, 0, 4, 2]))
    assert [position for position, _ in chosen[0]] == [1, 3, 0]
    assert [relative for _, relative in chosen[0]] == pytest.approx([-2 / 3, -1 / 3, 1])
    assert chosen[1] == [(2, 0.0)]


def test_of_each_search_the_policy_with_most_networks():
    policies = [{"group": group, "networks": [{}] * count} for group, count in (("a", 2), ("a", 5), ("b", 1))]
    assert widest_of_each_group(policies) == [policies[1]]


def test_ticks_are_round():
    assert log_ticks(0.9, 15) == [1, 2, 5, 10]
    assert log_ticks(0.65, 1.9) == pytest.approx([0.7, 0.8, 0.9, 1, 1.5]), "1 alone would be too few"
    assert linear_ticks(70.1, 94.2) == [75, 80, 85, 90]
    assert linear_ticks(90.3, 94.2) == pytest.approx([90.5, 91, 91.5, 92, 92.5, 93, 93.5, 94])


def test_static_masks_are_joined_and_fixed_ones_are_not():
    common = {"accuracy_low": 0.8, "accuracy_high": 0.9, "architectures": 1}
    policies = [
        {"group": group, "name": f"{group} {ms}", "accuracy": 0.85, "latency_ms": ms, **common}
        for group in ("fixed", "static")
        for ms in (3.0, 1.0, 2.0)
    ]
    (line,) = re.findall(r'<polyline class="line" points="([^"]*)"', frontier(policies))
    x = [float(point.split(",")[0]) for point in line.split()]
    assert len(x) == 3 and x == sorted(x)


def test_a_network_of_no_latency_has_its_place_left_of_the_others():
    """A log axis has no 0: it stands at half of the smallest other latency."""
    common = {"accuracy": 0.85, "accuracy_low": 0.8, "accuracy_high": 0.9, "architectures": 1}
    latencies = {"none": 0.0, "some": 1.0, "more": 2.0}
    policies = [{"group": "a", "name": name, "latency_ms": ms, **common} for name, ms in latencies.items()]
    (line,) = re.findall(r'<polyline class="line" points="([^"]*)"', frontier(policies))
    first, second, third = (float(point.split(",")[0]) for point in line.split())
    assert first < second and second - first == pytest.approx(third - second, abs=0.2)


def test_a_history_of_something_else_is_no_search(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"epoch": 1, "loss": 0.3, "val": {"policy": 0.8}}\n')
    assert load_search_history(path) == []
    path.write_text('{"epoch": 1, "lo')
    with pytest.raises(ValueError, match="line 1: not a JSON file"):
        load_search_history(path)
