"""The documentation: the site builds without a warning, links lead somewhere, commands parse, files exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from scripts.__main__ import PLACES, VERBS, parse

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if "_build" not in path.parts]
EVERY = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "results/README.md")] + PAGES
TYPED = [page for page in EVERY if page.parent.name != "results"]  # results tell what was typed when

FENCED = re.compile(r"^```(.*?)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)  # language, content


def named(page: Path) -> str:
    """A page's path as a test's name."""
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """What a link may name after the #: the headings in lower case, with hyphens, as GitHub has them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[list[str]]:
    """The verbs of `instanas` in a page's shell blocks, each with its arguments."""
    found = []
    shell = [content for language, content in FENCED.findall(page.read_text()) if not language]
    for block in shell:
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["instanas"]:
                found.append(words[1:])
            elif words[:1] == ["torchrun"]:
                found.append(words[words.index("scripts") + 1 :])
    return found


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", DOCS, tmp_path]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "<math" in (tmp_path / "paper.html").read_text(), "equations need no script"
    page = (tmp_path / "api" / "environment.html").read_text()
    assert "instanas_env.env.InstaNASEnv.step" in page, "the API comes from the docstrings"
    assert ">Starting State<" in page and "## Starting State" not in page, "Gymnasium's headings are headings"


@pytest.mark.parametrize("page", EVERY, ids=named)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text())):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


@pytest.mark.parametrize(
    "page", [page for page in EVERY if commands(page) and page.parent.name != "results"], ids=named
)
def test_commands_parse(page, capsys):
    """Every verb and option in a shell block exists; nothing is run."""
    for verb, *arguments in commands(page):
        if verb.startswith("-") or verb == "VERB":
            continue
        assert verb in VERBS, verb
        try:
            parse(import_module(PLACES.get(verb, f"scripts.{verb}")), verb, arguments)
        except SystemExit:
            pytest.fail(f"instanas {verb} {shlex.join(arguments)}\n{capsys.readouterr()}")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_named_files_and_modules_exist(page):
    text = page.read_text()
    for path in re.findall(r"`((?:instanas_env|agents|scripts|tests|examples)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"automodule:: ([\w.]+)", text):
        import_module(module)


def test_the_citation_is_of_this_version_and_that_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= cited.keys(), "what CFF 1.2 requires"
    assert cited["version"] == version("instanas-env")
    (paper,) = cited["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Cheng", "Lin", "Juan", "Wei", "Sun"]
    assert "1811.10201" in paper["url"]
