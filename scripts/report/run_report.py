"""The paper's figures and tables of a run: PNG files, and one page that opens offline.

    instanas report runs/evaluation

From files alone; no network is run. What a run has not got is left out, and the page names the command
that would make it. Reads results.json and images.safetensors (`instanas evaluate`), benchmark.json (`instanas
benchmark`), history.jsonl and choices.json of searches in the run (`instanas search`, `choose`), and
latency.json (`instanas profile`).
Writes the page, and beside it ``figure_*.png`` and the tables in Markdown.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import tyro

from instanas_env.storage import write_atomic
from scripts.report.page import page
from scripts.report.parts import drawn
from scripts.report.pictures import saved
from scripts.report.run_files import RunFiles


@dataclass(frozen=True)
class Options:
    """Which run, and where to."""

    run: tyro.conf.Positional[Path]
    """Directory of `instanas evaluate`, `benchmark`, `search` or `experiment`."""
    out: Path | None = None
    """The page, by default report.html of the run; the figures go beside it."""


def write_report(options: Options) -> Path:
    """Draw everything, write the page; gives its path.

    Raises:
        FileNotFoundError: no such run.
        ImportError: matplotlib or Jinja2 is missing.
    """
    if not options.run.is_dir():
        raise FileNotFoundError(f"run: {options.run} is no directory; `instanas evaluate --out` makes one")
    for module in ("matplotlib", "jinja2"):
        try:
            import_module(module)
        except ImportError as error:
            raise ImportError(f'the report needs {module}, an extra: pip install ".[plots]"') from error
    run = RunFiles(options.run)
    out = options.out or options.run / "report.html"
    parts = drawn(run)
    for part in parts:
        for name, figure in part.figures.items():
            write_atomic(out.parent / f"figure_{name}.png", saved(figure, "png"))
        if part.table:
            write_atomic(out.parent / f"{part.name}.md", part.table.markdown().encode())
    write_atomic(out, page(run, parts).encode())
    return out


def main(options: Options) -> None:
    """Write the report and say where."""
    print(f"wrote {write_report(options)}, and its figures beside it")
