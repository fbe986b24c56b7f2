"""The page of --find-lr: the loss over rising learning rates, on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hornbook.atomic import write_text
from hornbook.report import wording
from hornbook.report.page import WIDTHS, template
from hornbook.report.svg import Scale, path, picture, tag

PAGE = "find-lr.html"
TOP, HEIGHT, LEFT, ROOM = 50, 310, 44, 14
MARKS = (("careful", "level", "careful"), ("suggestion", "curve", "suggested"), ("lowest", "level", "lowest"))
"""A rate's name in find-lr.json, the class of its line, and its name on the page."""


def write_rates(found: Mapping[str, Any], advice: str, folder: str | Path) -> Path:
    """Write the page of what `training.find_rate` found into `folder`; returns where it is."""
    to = Path(folder) / PAGE
    write_text(to, render_rates(found, advice))
    return to


def render_rates(found: Mapping[str, Any], advice: str) -> str:
    """The HTML text."""
    name, data = (wording.visible(str(found.get(key, ""))) for key in ("model", "data"))
    facts = {"Optimiser": found.get("optimizer"), "Rows in a batch": found.get("batch")}
    facts |= {"Batches to a step": found.get("accumulate"), "Seed": found.get("seed"), "It ended": found.get("ended")}
    drawings = [(size, draw_rates(found, width, size)) for size, width in WIDTHS.items()] if found["rates"] else []
    return template("rates.html.jinja").render(
        title=f"Learning rates for {name} on {data}",
        result=f"{advice[0].upper()}{advice[1:]}.",
        drawings=drawings,
        rates=[(word, f"{found[key]:.2g}") for key, _, word in MARKS if found[key] is not None],
        facts={key: wording.visible(str(value)) for key, value in facts.items() if value is not None},
    )


def draw_rates(found: Mapping[str, Any], width: int, size: str) -> Markup:
    """The losses, faint, their mean, and the rates that are told of."""
    logs = [math.log10(rate) for rate in found["rates"]]
    low, high = math.floor(logs[0]), max(math.ceil(logs[-1]), math.floor(logs[0]) + 1)
    x = Scale(low, high, LEFT, width - ROOM)
    lowest, highest = room(found)
    y = Scale(highest, lowest, TOP, HEIGHT)
    ident = f"rates-{size}"
    box = tag("clipPath", tag("rect", x=LEFT, y=TOP, width=x.end - LEFT, height=HEIGHT - TOP), id=f"{ident}-box")
    clip = f"url(#{ident}-box)"
    raw, mean = ([(x(a), y(b)) for a, b in zip(logs, found[key], strict=True)] for key in ("losses", "smoothed"))
    told = [(word, found[key], kind) for key, kind, word in MARKS if found[key] is not None]
    return picture(
        ident,
        "Loss over the learning rate",
        "; ".join(f"{word} {rate:.2g}" for word, rate, _ in told) + ".",
        width,
        HEIGHT + 44,
        box,
        frame(x, y, width),
        tag("g", path(raw, class_="raw", clip_path=clip), path(mean, class_="curve", clip_path=clip), class_="c0"),
        *(mark(x(math.log10(rate)), word, kind, k) for k, (word, rate, kind) in enumerate(told)),
    )


def room(found: Mapping[str, Any]) -> tuple[float, float]:
    """For all smoothed losses, but for what leaps far above the first ones."""
    low, first = min(found["smoothed"]), found["smoothed"][0]
    top = min(max(found["smoothed"]), max(first, low) + 0.7 * max(first - low, 0.1))
    edge = 0.06 * max(top - low, 0.01)
    return low - edge, top + edge


def frame(x: Scale, y: Scale, width: int) -> Markup:
    """Losses across, powers of ten below: on a phone every other one."""
    across = [
        tag("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid")
        + tag("text", text, x=x.start - 8, y=y(value) + 4, class_="axis end")
        for value, text in Scale(y.high, y.low, y.end, y.start).ticks(5)
    ]
    powers = range(round(x.low), round(x.high) + 1, 1 if width > 500 else 2)
    below = [tag("text", power(k), x=x(k), y=HEIGHT + 18, class_="axis middle") for k in powers]
    name = tag("text", "learning rate", x=(x.start + x.end) / 2, y=HEIGHT + 38, class_="axis middle")
    return Markup("").join([*across, *below, name])


def power(exponent: int) -> str:
    return "1" if exponent == 0 else f"10{str(exponent).translate(wording.SUPERSCRIPT)}"


def mark(at: float, word: str, kind: str, row: int) -> Markup:
    """A line down the drawing, its name above it; neighbours' names are at different heights."""
    line = tag("line", x1=at, x2=at, y1=TOP, y2=HEIGHT, class_=kind)
    name = tag("text", word, x=at, y=TOP - 6 - 14 * row, class_="name middle")
    return tag("g", line, name, class_="c1" if kind == "curve" else "counted")
