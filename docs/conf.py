"""Builds the book and the API reference as HTML: `make docs`."""

from __future__ import annotations

import re
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

project = "Hornbook"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["build"]
html_theme = "furo"
html_title = "Hornbook"
html_show_copyright = False
html_math_renderer = "mathml"  # which browsers draw by themselves: no script, no network
suppress_warnings = ["myst.xref_missing", "ref.python"]  # a name in a type hint may be that of several classes

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False  # torch's and Python's own are written otherwise
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100

SPECIAL = re.compile(r"(?<!`)`([^`]+)`(?!`)|([\\*|_])")


def plain(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `code` in them: nothing else is to mean anything. What is indented is code."""
    found: list[str] = []
    for indented, group in groupby(lines, lambda line: line.startswith("    ") or (not line.strip() and None)):
        text = list(group)
        if indented:
            found += ["", "::", "", *text, ""]
        else:
            found += prose(text)
    lines[:] = [*found, ""]


def prose(text: list[str]) -> list[str]:
    """Paragraphs with their `code` marked, and all that reStructuredText would take for markup escaped."""
    joined = "\n".join(line.strip() for line in text)
    return SPECIAL.sub(lambda m: f"``{m[1].strip()}``" if m[1] else f"\\{m[2]}", joined).split("\n")


ACCESSIBLE = {
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    "<pre>": '<pre tabindex="0">',
    '<th class="head"><p></p></th>': "<td></td>",
}
"""What the theme writes, and what readers of the screen and of the keyboard need (WCAG 2.2: 1.3.1, 2.1.1, 4.1.2)."""


def accessible(app: Any, error: Exception | None) -> None:
    """Name landmarks and levels, let long lines be scrolled by the keyboard, and head no column with nothing."""
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for usual, better in ACCESSIBLE.items():
            text = text.replace(usual, better)
        page.write_text(text, encoding="utf-8")


def inline_formula(writer: Any, node: Any) -> None:
    writer.body.append(convert(node.astext()))
    raise SkipNode


def formula(writer: Any, node: Any) -> None:
    shown = convert(node.astext(), display="block")
    writer.body.append(f'<div tabindex="0" style="overflow-x: auto; margin: 0.8em 0">{shown}</div>')
    raise SkipNode


def setup(app: Any) -> None:
    app.add_html_math_renderer("mathml", (inline_formula, None), (formula, None))
    app.connect("build-finished", accessible)
    app.connect("autodoc-process-docstring", plain)
