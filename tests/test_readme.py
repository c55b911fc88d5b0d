"""The Python of the README and of every page of the docs, run from top to bottom as a reader would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Learning is made short; nothing else is changed.
LEARNING = re.compile(r"learn\([^)]*\)")


def blocks(page: Path) -> list[str]:
    """Its Python blocks, in order."""
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_every_block_runs(page, tmp_path, monkeypatch):
    """One after the other in one session; what they write goes to the folder they are run in."""
    monkeypatch.chdir(tmp_path)
    session: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        exec(compile(LEARNING.sub("learn(512)", block), str(page), "exec"), session)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
