"""`hornbook inspect RUN --diagram PATH`: the model drawn, as Mermaid or as SVG."""

from __future__ import annotations

from pathlib import Path

from hornbook.atomic import write_text
from hornbook.inspection.anatomy import Anatomy
from hornbook.report.diagram_svg import draw
from hornbook.report.mermaid import mermaid
from hornbook.report.wording import visible


def write_diagram(found: Anatomy, path: str) -> Path:
    """Write the drawing of a model to a path that ends in .svg or .mmd; returns it."""
    nodes, where = found.flow, Path(path)
    title = visible(f"{found.name}: {found.config.family}, {found.parameters:,} parameters")
    source = ", S positions of the source" if found.model.reads_source else ""
    note = f"B rows, T positions{source}. Thick arrows: residual paths. Dropout, off where nothing learns, is left out."
    if found.model.counted:
        note = (
            "B rows, T positions. Nothing is learnt: tables are looked up, the longest known context has the last word."
        )
    if where.suffix == ".mmd":
        text = mermaid(nodes, title, note)
    else:
        layers = dict.fromkeys(f"{g.label} ({g.times} alike)" for node in nodes for g in node.groups if g.times > 1)
        ways = "; ".join(f"{node.short} from {' and '.join(node.reads)}" for node in nodes if node.reads)
        text = draw(nodes, title, note, f"Folded: {', '.join(layers) or 'nothing'}. {ways}.")
    write_text(where, text)
    return where
