"""The documentation site: Sphinx, MyST's Markdown and the furo theme; the API comes from the docstrings."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = "InstaNAS as a Gymnasium environment"
author = "The InstaNAS-env authors"
copyright = f"2026, {author}"
release = version = version_of("instanas-env")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3  # the same anchors as on GitHub
smartquotes = False  # so that "--out" stays as it is typed

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "InstaNAS"
html_theme_options = {"navigation_with_keys": True}

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

HEADING = re.compile(r"^## (.+)$")
RULE = re.compile(r"^\|[-| ]+\|$")


def cells(row: str) -> list[str]:
    """The cells of a row of a Markdown table."""
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def list_table(rows: list[str]) -> list[str]:
    """A Markdown table as reStructuredText's ``list-table``."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        if not RULE.match(row.strip()):
            marks = ["   * - ", *["     - "] * (len(cells(row)) - 1)]
            lines += [mark + cell for mark, cell in zip(marks, cells(row), strict=True)]
    return [*lines, ""]


def literal_blocks(lines: list[str]) -> list[str]:
    """Formulas and commands, four spaces in and below an empty line, as literal blocks."""
    out: list[str] = []
    for line in lines:
        before = next((earlier for earlier in reversed(out) if earlier.strip()), "")
        if line.startswith("    ") and out and not out[-1].strip() and not before.startswith("    "):
            out += ["::", ""]
        out.append(line)
    return out


def markdown_parts(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings follow Gymnasium's habit: reStructuredText, but headings and tables as in Markdown."""
    out: list[str] = []
    table: list[str] = []
    for line in [*(literal_blocks(lines) if what == "module" else lines), ""]:
        heading = HEADING.match(line)
        if line.lstrip().startswith("| ") or RULE.match(line.strip()):
            table.append(line)
            continue
        if table:
            out += list_table(table)
            table = []
        out += [f".. rubric:: {heading[1]}", ""] if heading else [line]
    lines[:] = out


def write_inline(writer: Any, node: Any) -> None:
    """A formula as MathML, which browsers draw by themselves: no script from elsewhere."""
    writer.body.append(tex2mathml(node.astext()))
    raise SkipNode


def write_block(writer: Any, node: Any) -> None:
    """The same as a paragraph of its own."""
    writer.body.append(tex2mathml(node.astext(), as_block=True))
    raise SkipNode


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", markdown_parts)
    app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))
