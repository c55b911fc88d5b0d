"""The report: every figure from files alone, a page that loads nothing, notes for what is missing."""

from __future__ import annotations

import functools
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

import pytest
import torch

from agents.evaluation.image_record import ImageRecord
from agents.evaluation.over_seeds import over_seeds
from instanas_env.build import shipped
from instanas_env.storage import load_json, save_json
from scripts import evaluate, search
from scripts.comparison.tables import notes, rival_pair, table
from scripts.comparison.text_table import TextTable, count, difference, milliseconds, points, signed
from scripts.report.page import IDEA, claim, told
from scripts.report.printed import (
    CIFAR10,
    CIFAR10_CLASSES,
    CIFAR100,
    PRINTED,
    beside_the_paper,
    printed_for,
)
from scripts.report.run_report import Options, main, write_report
from tests.tools.pipeline_fixtures import ROOT, home, image_folder, read_strictly, search_options

# In two epochs the window falls faster than a controller can follow; that is what the warning is for.
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* no latency fell inside the reward window")

SECTIONS = [
    "frontier",
    "shown",
    "table",
    "pairs",
    "images",
    "latency",
    "modules",
    "map",
    "search",
    "estimate",
]
VOID = {"meta", "img", "br", "wbr", "link", "input", "hr"}
BAD = '<script>alert("x")</script> $\\frac$ | *'


class Page(HTMLParser):
    """A page taken apart: elements with their attributes, and the texts of titles, of h2 and of code."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {"title": [], "code": [], "td": [], "h1": [], "li": [], "p": []}
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
    return read_strictly(run() / "results.json")["rows"]


def lines() -> list[dict]:
    return read_strictly(run() / "results.json")["policies"]


def copied(to: Path, **changes) -> Path:
    """The run's comparison in another place, with changed results."""
    save_json(to / "results.json", {**load_json(run() / "results.json"), **changes})
    shutil.copy(run() / "images.safetensors", to)
    return to


# --- the whole page ------------------------------------------------------------------------------


def test_every_part_is_on_the_page_and_beside_it():
    page = Page(reported())
    assert page.sections(missing=False) == SECTIONS and page.sections(missing=True) == []
    found = sorted(path.name for path in reported().parent.iterdir())
    figures = ["estimate", "frontier", "images", "latency", "map", "modules", "search_1"]
    assert found == [*(f"figure_{name}.png" for name in figures), "page.html", "pairs.md", "table.md"]


def test_the_same_input_gives_the_same_bytes(tmp_path):
    write_report(Options(run(), tmp_path / "page.html"))
    for path in reported().parent.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_page_loads_nothing_and_runs_nothing():
    """No address at all, and a policy that would forbid the browser to follow one."""
    page = Page(reported())
    written = re.sub(r"base64,[\w+/=]+", "", page.source)  # where "//www" may stand for a grey of some pixels
    assert "http://" not in written and "https://" not in written and "//www" not in written
    assert not page.all("link") and not page.all("script") and "@import" not in page.source
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert all(target.startswith("#") for target in re.findall(r"url\((.)", page.source))
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'") and "script-src" not in policy


def test_pictures_say_what_they_show():
    page = Page(reported())
    assert len(page.all("img")) == 6 + 2 * 6 and len(page.all("svg")) == 1
    assert all(len(image["alt"]) > 15 for image in page.all("img"))


def test_the_top_tells_the_claim_and_shows_six_images():
    page = Page(reported())
    (title,) = page.texts["h1"]
    assert title.startswith("With a network of its own for every image") and "95 % interval" in title
    assert len(page.texts["li"]) == 6
    times = [float(ms) for ms in re.findall(r"([\d.]+) ms, \d+ of 85", page.source)]
    assert len(times) == 6 and times == sorted(times)


def test_every_policy_has_a_mark_with_its_numbers():
    titles = Page(reported()).texts["title"][1:]  # the first is that of the page
    assert sorted(title.splitlines()[0] for title in titles) == sorted(line["policy"] for line in lines())
    full = next(line for line in lines() if line["policy"] == "full meta-graph")
    shown = next(title for title in titles if title.startswith("full meta-graph")).splitlines()
    assert shown[1].startswith(f"{100 * full['accuracy'][0]:.1f} (")
    assert shown[2:] == [f"{milliseconds(full['latency_ms'][0])} ms", "1 network"]


def test_a_name_is_text_and_never_markup(tmp_path):
    """``report <run>`` is the run's name; policies and classes may have worse ones."""
    assert "report <run>" not in reported().read_text() and "report &lt;run&gt;" in reported().read_text()
    names = {row["policy"]: row["policy"].replace("reference (shipped)", BAD) for row in rows()}
    bad = [{**row, "policy": names[row["policy"]], "group": "<b>"} for row in rows()]
    copied(tmp_path, policies=over_seeds(bad), rows=bad)
    record = ImageRecord.load(run() / "images.safetensors")
    worse = {names[name]: choices for name, choices in record.policies.items()}
    classes = tuple(f"<i>{BAD}" for _ in record.classes)
    ImageRecord(record.label, record.sample, record.thumbnails, classes, worse).save(
        tmp_path / "images.safetensors"
    )
    page = Page(write_report(Options(tmp_path)))
    assert not page.all("script") and not page.all("i") and page.sections(missing=True) == ["search"]
    assert len(page.all("b")) == page.source.count("<b>(mistaken)</b>")
    assert BAD in page.texts["td"] and any(BAD in item for item in page.texts["li"])
    assert "<script" not in (tmp_path / "table.md").read_text()


# --- missing inputs ------------------------------------------------------------------------------


def test_an_empty_run_says_what_would_fill_it(tmp_path):
    """The shipped table's record is always there."""
    page = Page(write_report(Options(tmp_path)))
    missing = [name for name in SECTIONS if name not in ("shown", "pairs", "estimate")]
    assert page.sections(missing=True) == missing and page.sections(missing=False) == ["estimate"]
    commands = [f"instanas evaluate --out {tmp_path}"] * 6
    assert page.texts["code"] == [*commands, f"instanas search --out {tmp_path / 'search'}"]
    assert page.texts["h1"] == [f"{IDEA}."]


def test_a_comparison_without_controllers_has_its_frontier_and_table(tmp_path):
    without = [{name: value for name, value in row.items() if name != "masks"} for row in rows()]
    page = Page(write_report(Options(copied(tmp_path, rows=without, gains=[]))))
    assert page.sections(missing=False) == ["frontier", "table", "estimate"]
    assert page.texts["code"][0].startswith(f"instanas evaluate --out {tmp_path} --dataset folder")
    assert len(page.all("tr")) - 1 == len(lines())


@pytest.mark.parametrize("record", ["none", "of another comparison"])
def test_without_the_record_of_images_there_are_none(tmp_path, record):
    changed = rows()
    if record != "none":
        next(row for row in changed if "masks" in row)["masks"][0]["images"] += 1
    copied(tmp_path, rows=changed)
    if record == "none":
        (tmp_path / "images.safetensors").unlink()
    page = Page(write_report(Options(tmp_path)))
    assert page.sections(missing=True) == ["images", "map", "search"]
    assert "shown" not in page.sections(missing=False)


def test_a_search_alone_shows_its_course(tmp_path):
    page = Page(write_report(Options(run() / "reinforce", tmp_path / "page.html")))
    assert page.sections(missing=False) == ["search", "estimate"]


def test_the_picks_of_a_search_are_drawn(tmp_path):
    picked = {"points": [{"latency_ms": 1.0, "accuracy": 0.5}], "frontier": [0], "picks": {"A": 0}}
    save_json(tmp_path / "a" / "choices.json", picked)
    assert "picks" in Page(write_report(Options(tmp_path))).sections(missing=False)
    assert (tmp_path / "figure_picks_1.png").exists()


def test_a_run_on_cifar10_stands_beside_the_paper(tmp_path):
    """C takes 0.047 / 0.092 = 0.51 of MobileNetV2's time. A folder is told by its classes."""
    assert "printed" not in Page(reported()).sections(missing=False)
    classes = sorted(CIFAR10_CLASSES)
    copied(tmp_path, image_sets={"test": {"classes": classes}})
    page = Page(write_report(Options(tmp_path)))
    assert "printed" in page.sections(missing=False)
    shown = [line.strip("| ").split(" | ") for line in (tmp_path / "printed.md").read_text().splitlines()]
    assert shown[2:][CIFAR10.index(("InstaNAS-C10-C", 5.20, 0.047))] == [
        "InstaNAS-C10-C", "the paper (quoted)", "5.20", "0.51",
    ]  # fmt: skip
    own = {line[0]: line for line in shown[2 + len(CIFAR10) :]}
    assert own["MobileNetV2 trained alone"][1::2] == ["this run", "1.00"]
    assert "reference (shipped)" in own and "cheapest path" not in own


def test_an_error_is_one_less_the_accuracy_and_its_ends_change_places():
    """90 % (85 to 95) right: 10 % (5 to 15) wrong; 2 ms of 4 are half."""
    (first, second) = beside_the_paper(CIFAR100, [REFERENCE, {**OURS, "group": "c"}]).lines[len(CIFAR100) :]
    assert first == ("MobileNetV2 trained alone", "this run", "10.00 (5.00 to 15.00)", "1.00")
    assert second == ("c", "this run", "10.00 (5.00 to 15.00)", "0.50")
    assert printed_for("cifar10", ()) == CIFAR10 and printed_for("fashion_mnist", ("a",)) == ()
    assert all(len(beside_the_paper(systems, []).lines) == len(systems) for systems in PRINTED.values())


def test_means_over_seeds_make_the_claim_and_tell_who_is_better(tmp_path):
    policy = next(row["policy"] for row in rows() if "masks" in row)
    several = [line if line["policy"] != policy else {**line, "seeds": 5} for line in lines()]
    for line in several:
        line["over_static_accuracy"] = [0.02, 0.01, 0.03]
    gains = [{"policy": policy, "over": "rival", "accuracy": [0.02, 0.015, 0.025], "latency": 0.9}]
    page = Page(write_report(Options(copied(tmp_path, policies=several, gains=gains))))
    assert "2.0 more" in page.texts["h1"][0] and "over 5 seeds" in page.texts["h1"][0]
    told = f"| {policy} | rival | +2.0 (1.5 to 2.5) | \N{MINUS SIGN}10 % |"
    assert (tmp_path / "pairs.md").read_text().splitlines()[2:] == [told]
    assert "+2.0 (1.5 to 2.5)" in page.source


@pytest.mark.parametrize("record", ["fashion_mnist", "leaderboard", "twin"])
def test_the_records_in_the_repository_have_whole_pages(tmp_path, record):
    page = Page(write_report(Options(ROOT / "results" / record, tmp_path / "page.html")))
    assert page.sections(missing=False) == ["frontier", "ranking", "curves"]
    assert page.sections(missing=True) == []


def test_the_command_names_the_controllers_of_the_run(tmp_path):
    (tmp_path / "reinforce").mkdir()
    shutil.copy(run() / "reinforce" / "controller.safetensors", tmp_path / "reinforce")
    command = Page(write_report(Options(tmp_path))).texts["code"][0]
    assert command == f"instanas evaluate --out {tmp_path} --runs {tmp_path / 'reinforce'}"


def test_figure_4_is_of_the_table_that_the_comparison_counted_by(tmp_path):
    content = load_json(shipped("latency/lite.json"))
    save_json(tmp_path / "other.json", {**content, "record": {}})
    options = {**load_json(run() / "results.json")["options"], "latency_table": str(tmp_path / "other.json")}
    page = Page(write_report(Options(copied(tmp_path, options=options))))
    assert "estimate" in page.sections(missing=True), "the shipped table has a record, this one has none"


def test_a_table_without_a_record_of_children(tmp_path):
    content = load_json(shipped("latency/lite.json"))
    save_json(tmp_path / "latency.json", {**content, "record": {}})
    page = Page(write_report(Options(tmp_path)))
    assert page.texts["code"][-1] == f"instanas profile --out {tmp_path / 'latency.json'}"


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_errors_name_what_is_missing(tmp_path, monkeypatch, module):
    with pytest.raises(FileNotFoundError, match="run: .*nowhere is no directory"):
        write_report(Options(tmp_path / "nowhere"))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'needs {module}.* pip install "\.\[plots\]"'):
        write_report(Options(tmp_path, tmp_path / "new" / "page.html"))
    assert list(tmp_path.iterdir()) == []


def test_main_says_where(tmp_path, capsys):
    main(Options(tmp_path))
    assert capsys.readouterr().out == f"wrote {tmp_path / 'report.html'}, and its figures beside it\n"


# --- the table and the claim ---------------------------------------------------------------------

REFERENCE = {
    "policy": "MobileNetV2 trained alone",
    "seeds": 1,
    "images": (1000, None, None),
    "accuracy": (0.9, 0.85, 0.95),
    "latency_ms": (4.0, None, None),
    "networks": (1200, None, None),
}
OURS = {
    **REFERENCE,
    "policy": "c",
    "latency_ms": (2.0, None, None),
    "over_static_accuracy": (0.005, -0.01, 0.02),
    "lost_shuffled_accuracy": (0.03, 0.0, 0.04),
    "oracle_accuracy": (0.98, None, None),
}


def test_the_table_compares_with_mobilenet_v2_and_with_the_controls():
    """2 ms of 4 are 50 % less. A network for all has nothing to shuffle."""
    one = {**OURS, "policy": "a", "networks": (1, None, None), "over_static_accuracy": None}
    policies = [REFERENCE, {**one, "oracle_accuracy": None}, {**OURS, "clock_ms": (0.5, None, None)}]
    accuracy, less = "90.0 (85.0 to 95.0)", "\N{MINUS SIGN}50 %"
    gain = "0.5 (\N{MINUS SIGN}1.0 to 2.0)"
    shown = table(policies)
    assert shown.head == (
        "policy", "seeds", "right, %", "ms", "against MobileNetV2", "networks", "over one network, points",
        "lost shuffled, points", "oracle, %", "ms by the clock",
    )  # fmt: skip
    assert shown.lines == [
        ("MobileNetV2 trained alone", "1", accuracy, "4.000", "0 %", "1,200", "", "", "", ""),
        ("a", "1", accuracy, "2.000", less, "1", "", "", "", ""),
        ("c", "1", accuracy, "2.000", less, "1,200", gain, "3.0 (0.0 to 4.0)", "98.0", "0.500"),
    ]
    assert "against MobileNetV2" not in table([OURS]).head, "nothing to compare"


def test_the_notes_are_about_the_columns_that_are_there():
    assert "Oracle:" in notes(table([OURS])) and "Oracle:" not in notes(table([REFERENCE]))


def test_one_table_is_shown_in_the_terminal_and_as_markdown(capsys):
    """Names are text in both: Rich knows [bold], Markdown bars, stars and HTML."""
    table = TextTable(("a", "b"), [("[bold]x", "1"), ("<b>|*\nline", "2")])
    table.show()
    assert "[bold]x" in capsys.readouterr().out
    assert table.markdown().splitlines() == [
        "| a | b |",
        "| --- | ---: |",
        r"| \[bold\]x | 1 |",
        r"| &lt;b&gt;\|\* line | 2 |",
    ]


def test_numbers_as_text():
    minus = "\N{MINUS SIGN}1.3"
    assert [signed(value, 1) for value in (0.04, -0.04, 1.26, -1.26)] == ["0.0", "0.0", "1.3", minus]
    assert difference(1.004) == "0 %" and difference(2) == "+100 %"
    assert points((0.01, None, None), "+") == "+1.0" and points(None) == ""
    assert milliseconds(0.3521) == "0.352" and milliseconds(14.2) == "14.20"
    assert count(1, "network") == "1 network" and count(1012, "image") == "1,012 images"


def test_no_gain_is_no_claim_of_one():
    text = claim({**OURS, "over_static_accuracy": (-0.0001, -0.006, 0.006)})
    assert "as many images are recognised as with the best single network" in text
    assert "chance" not in text and "more" not in text and "fewer" not in text


@pytest.mark.parametrize(
    "low, high, says",
    [(0.001, 0.02, "0.5 more of 100"), (-0.01, 0.02, "0.5 more of 100"), (-0.02, -0.001, "0.5 fewer of 100")],
)
def test_the_claim_says_which_way_it_went(low, high, says):
    line = {**OURS, "over_static_accuracy": (0.005 if high > 0 else -0.005, low, high)}
    text = claim(line)
    assert says in text and ("may be chance" in text) is (low < 0 < high)
    assert text.endswith(
        f"(95 % interval over 1,000 images: {signed(100 * low, 1)} to {signed(100 * high, 1)})"
    )
    assert claim(REFERENCE) == IDEA


def test_the_claim_is_against_the_rival_where_there_is_one():
    pair = {"policy": "ours_finetuned", "over": "fixed_alone_ours", "accuracy": (-0.02, -0.03, -0.01)}
    line = {**OURS, "policy": "ours_finetuned", "over_static_accuracy": (0.02, 0.01, 0.03)}
    text = claim(line, rival_pair("ours_finetuned", [{**pair, "over": "other"}, pair]))
    assert "2.0 fewer of 100 images" in text and "takes no longer and was trained in the same way" in text
    assert text.endswith("(95 % interval over 1,000 images: \N{MINUS SIGN}3.0 to \N{MINUS SIGN}1.0)")
    assert "over 1,000 images and 3 seeds" in claim({**line, "seeds": 3}, pair)
    assert rival_pair("ours", [{**pair, "policy": "ours"}]) is None, "the search itself was trained otherwise"
    assert "\N{MINUS SIGN}50 % against MobileNetV2 trained alone" in told(line, [REFERENCE, line])
    assert told(line, [line]).endswith("on average.")
