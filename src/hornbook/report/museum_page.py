"""The museum of mistakes as a page: every piece with its figures, the mistaken beside the honest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hornbook.atomic import write_text
from hornbook.report import wording
from hornbook.report.page import VERSIONS, template

SIGNS = {"mistaken": "the mistake's", "honest": "honest", "aside": ""}
"""Kind of a figure -> what the page says of it."""


def write_museum(pieces: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], to: str | Path) -> Path:
    """Write the page of measured pieces (`mistakes.telling.told`) to a file, in one step; returns where it is."""
    path = Path(to)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render_museum(pieces, facts))
    return path


def render_museum(pieces: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """The HTML text; the same input gives the same text."""
    versions = ", ".join(f"{name} {facts[key]}" for key, name in VERSIONS.items() if key in facts)
    held = sum(bool(piece["holds"]) for piece in pieces)
    return template("museum.html.jinja").render(
        title="The museum of mistakes",
        result=f"{len(pieces)} well-known mistakes, each planted and measured here: {held} cost what is told, and "
        f"hornbook doctor finds {sum(piece['caught'] == 'FAIL' for piece in pieces)}.",
        pieces=pieces,
        signs=SIGNS,
        facts={
            "Command": facts["command"],
            "Text": facts["text"],
            "Steps of training": f"{facts['steps']:,}",
            "Seconds": wording.seconds(facts["seconds"]),
            "Machine": facts["machine"],
            "Date": facts["date"],
            "Versions": versions,
        },
    )
