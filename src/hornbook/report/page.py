"""The page: what was measured, laid out for a reader; one file that refers to nothing outside of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from hornbook.atomic import write_text
from hornbook.report import wording
from hornbook.report.curves import draw_curves, training_lines, validation_lines
from hornbook.report.dots import draw_dots
from hornbook.report.remarks import remarks
from hornbook.report.rung import Rung, ranked

__all__ = ["Rung", "render", "write_report"]

WIDTHS = {"wide": 772, "narrow": 340}
"""Every chart is drawn for a desk and for a phone; the style sheet shows the one that fits."""

COLOURS = 8
"""Classes c0 to c7 of the style sheet; what is counted is grey."""

REPEAT = {
    "corpus": "Text",
    "tokenizer": "Tokeniser",
    "minutes": "Minutes a neural rung",
    "prompt": "Prompt of the samples",
    "seed": "Seed",
    "machine": "Machine",
    "date": "Date",
}
VERSIONS = {"hornbook": "Hornbook", "torch": "PyTorch", "python": "Python"}


def write_report(path: Path, facts: dict[str, Any], rungs: list[Rung]) -> None:
    """Write the page of a ladder to `path`, in one step: a reader of the file never meets half of it.

    facts: command, title, prompt and the keys of REPEAT and VERSIONS; what is missing is not shown.
    """
    write_text(path, render(facts, rungs))


def render(facts: dict[str, Any], rungs: list[Rung]) -> str:
    """The HTML text; the same input gives the same text."""
    facts = {key: wording.visible(value) if isinstance(value, str) else value for key, value in facts.items()}
    facts = {key: value for key, value in facts.items() if value is not None}
    colours = colour(rungs)
    return template("page.html.jinja").render(
        title=facts.get("title", "The ladder"),
        result=result(rungs),
        facts=facts,
        repeat=repeat(facts),
        rungs=rungs,
        ranked=ranked(rungs),
        unranked=[r for r in rungs if r.bits is None and not r.is_encoder],
        encoders=[r for r in rungs if r.is_encoder],
        measured_on=measured_on(rungs),
        colours=colours,
        charts=charts(rungs, colours),
        samples=[(r, *split_sample(r, facts.get("prompt", ""))) for r in rungs if r.summary.get("sample") is not None],
        remarks=remarks(rungs, facts),
    )


def template(name: str) -> Template:
    """A template of this package; what it is given is escaped, and what it asks for must be given."""
    environment = Environment(
        loader=PackageLoader("hornbook", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(words=wording)
    return environment.get_template(name)


def colour(rungs: list[Rung]) -> dict[str, str]:
    """A class of the style sheet for each rung: the trained ones in turn, grey for the others."""
    trained = [r.name for r in rungs if not (r.is_counted or r.is_encoder)]
    return {r.name: f"c{trained.index(r.name) % COLOURS}" if r.name in trained else "counted" for r in rungs}


def repeat(facts: dict[str, Any]) -> list[tuple[str, Any]]:
    """What one must know to repeat the ladder, named."""
    rows = [(name, facts[key]) for key, name in REPEAT.items() if key in facts]
    versions = ", ".join(f"{name} {facts[key]}" for key, name in VERSIONS.items() if key in facts)
    return [*rows, ("Versions", versions)] if versions else rows


def result(rungs: list[Rung], noun: str = "rung") -> str:
    """The main result in one sentence."""
    order = ranked(rungs)
    if not order:
        return f"No {noun} has been measured in bits per byte."
    best = order[0]
    data = wording.visible(str(best.summary.get("data") or ""))
    between = f" (95 % interval {best.interval[0]:.3f} to {best.interval[1]:.3f})" if best.interval else ""
    among = f", the fewest of {len(order)} {noun}s" if len(order) > 1 else ""
    unseen = f" of text from {data} that it had not seen" if data else " of text that it had not seen"
    return f"{best.name} needs {best.bits:.3f} bits{between} for each byte{unseen}{among}."


def measured_on(rungs: list[Rung], noun: str = "rung") -> str:
    """What the validation figures were measured on, where all rungs agree."""
    found = {(r.validation.get("documents"), r.validation.get("bytes")) for r in rungs if r.bits is not None}
    windows = {(r.validation.get("context"), r.validation.get("stride")) for r in rungs if r.bits and not r.is_counted}
    told = []
    if len(found) == 1 and None not in (only := found.pop()):
        told.append(f"Measured on the whole validation split: {only[0]:,} documents, {only[1]:,} bytes.")
    if len(windows) == 1 and None not in (only := windows.pop()):
        told.append(f"Neural {noun}s read windows of {only[0]:,} tokens with a stride of {only[1]:,}.")
    return " ".join(told)


def charts(rungs: list[Rung], colours: dict[str, str]) -> dict[str, list[tuple[str, Markup]]]:
    """Chart -> its drawings by size; only those that have something to show."""
    order = ranked(rungs)
    validation, training = validation_lines(rungs, colours), training_lines(rungs, colours)
    drawn: dict[str, list[tuple[str, Markup]]] = {}
    for size, width in WIDTHS.items():
        if order:
            drawn.setdefault("dots", []).append((size, draw_dots(order, colours, width, f"dots-{size}")))
        if any(line.points for line in validation):
            picture = draw_curves(validation, "Bits per byte while training", "bits per byte", width, f"bits-{size}")
            drawn.setdefault("validation", []).append((size, picture))
        if training:
            picture = draw_curves(training, "Training loss", "nats per token", width, f"loss-{size}")
            drawn.setdefault("training", []).append((size, picture))
    return drawn


def split_sample(rung: Rung, prompt: str) -> tuple[str, str]:
    """The prompt, and what the model wrote after it."""
    text = wording.visible(str(rung.summary["sample"]))
    return (prompt, text.removeprefix(prompt)) if prompt and text.startswith(prompt) else ("", text)
