"""Bits per byte of every rung: a dot for the figure, a whisker for its 95 % interval, the best on top."""

from __future__ import annotations

from markupsafe import Markup

from hornbook.report import wording
from hornbook.report.rung import Rung
from hornbook.report.svg import LETTER, Scale, padded, picture, tag

ROW = 32


def draw_dots(rungs: list[Rung], colours: dict[str, str], width: int, ident: str) -> Markup:
    """`rungs` have bits per byte and come best first; `colours` names a class of the style sheet for each."""
    left = 10 + LETTER * max(len(r.name) for r in rungs)
    bottom = 12 + ROW * len(rungs)
    x = Scale(*padded([value for r in rungs for value in reach(r)], 0.04), left, width - 58)
    rows = [draw_row(r, 12 + ROW * (i + 0.5), x, colours[r.name], width) for i, r in enumerate(rungs)]
    best = rungs[0].bits or 0
    mark = tag("line", x1=x(best), x2=x(best), y1=12, y2=bottom, class_="best")
    name = tag("text", "bits per byte, fewer is better", x=(x.start + x.end) / 2, y=bottom + 38, class_="axis middle")
    return picture(
        ident,
        "Bits per byte of every rung, best first",
        "; ".join(told(r) for r in rungs) + ".",
        width,
        bottom + 46,
        draw_axis(x, bottom, 6 if width > 500 else 4),
        mark,
        *rows,
        name,
    )


def reach(rung: Rung) -> tuple[float, ...]:
    return (rung.bits or 0, *(rung.interval or ()))


def told(rung: Rung) -> str:
    between = f" ({wording.bits(rung.interval[0])} to {wording.bits(rung.interval[1])})" if rung.interval else ""
    return f"{rung.name} {wording.bits(rung.bits)}{between}"


def draw_axis(x: Scale, bottom: float, wanted: int) -> Markup:
    return Markup("").join(
        tag("line", x1=x(value), x2=x(value), y1=12, y2=bottom, class_="grid")
        + tag("text", label, x=x(value), y=bottom + 18, class_="axis middle")
        for value, label in x.ticks(wanted)
    )


def draw_row(rung: Rung, y: float, x: Scale, colour: str, width: int) -> Markup:
    parts = [tag("text", rung.name, x=x.start - 10, y=y + 4.5, class_="end")]
    if rung.interval:
        low, high = (x(value) for value in rung.interval)
        parts.append(tag("line", x1=low, x2=high, y1=y, y2=y, class_="whisker"))
        parts += [tag("line", x1=at, x2=at, y1=y - 5, y2=y + 5, class_="whisker") for at in (low, high)]
    parts.append(tag("circle", tag("title", told(rung)), cx=x(rung.bits or 0), cy=y, r=5.5, class_="dot"))
    parts.append(tag("text", wording.bits(rung.bits), x=width - 4, y=y + 4.5, class_="end figure"))
    return tag("g", *parts, class_=colour)
