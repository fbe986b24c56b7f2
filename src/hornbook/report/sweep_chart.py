"""The pictures of a sweep: a line a trial across all settings to its value, and the best value trial by trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from hornbook.report import wording
from hornbook.report.svg import Scale, padded, path, picture, tag

WIDE = 500
"""Pixels from which on axes stand side by side; on a phone they lie one below the other."""
TALL, TOP, EDGE = 300, 40, 60
ROW = 64
"""Pixels from one lying axis to the next."""

Trial = Mapping[str, Any]
"""A row of what a sweep found."""


@dataclass(frozen=True)
class Line:
    """One axis: where a value lies, as a share from 0 to 1, and its marks."""

    name: str
    share: Callable[[Any], float]
    ticks: tuple[tuple[float, str], ...]


def spelled(value: Any) -> str:
    """A setting's value: three figures of a float."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def draw_parallel(found: Mapping[str, Any], width: int, ident: str) -> Markup:
    """Parallel coordinates; an axis a setting, the last one the value. `width` in pixels."""
    shown = drawn(found)
    lines = [axis(name, one, shown) for name, one in found["over"].items()] + [values_axis(found)]
    wide = width > WIDE
    height = TOP + TALL + 24 if wide else TOP + ROW * (len(lines) - 1) + 34

    def at(number: int, share: float) -> tuple[float, float]:
        share = min(max(share, 0.0), 1.0)
        if wide:
            return EDGE + number * (width - 2 * EDGE) / (len(lines) - 1), TOP + (1 - share) * TALL
        return 16 + share * (width - 32), TOP + ROW * number

    best = next(trial for trial in shown if trial["trial"] == found["best"])
    return picture(
        ident,
        "Every trial's settings and its value",
        f"{len(shown)} trials; the best: {told(best)}.",
        width,
        height,
        *(draw_line(line, number, at, wide) for number, line in enumerate(lines)),
        *(draw_trial(trial, lines, at, look(trial, found)) for trial in shown),
    )


def drawn(found: Mapping[str, Any]) -> list[Trial]:
    """The trials that have a value: the worst first, the default and the best on top."""
    shown = [trial for trial in found["trials"] if trial["value"] is not None]
    return sorted(shown, key=lambda one: (one["trial"] == found["best"], one["trial"] == 0, -one["value"]))


def told(trial: Trial) -> str:
    """A trial in words."""
    settings = ", ".join(f"{name} {spelled(value)}" for name, value in trial["settings"].items())
    end = "" if trial["state"] == "done" else f", {trial['state']}"
    return wording.visible(f"trial {trial['trial']}, {settings}: {wording.bits(trial['value'])}{end}")


def axis(name: str, one: Mapping[str, Any], shown: list[Trial]) -> Line:
    """The axis of a setting, with room for the default's value too."""
    values = [trial["settings"][name] for trial in shown if trial["settings"][name] is not None]
    if one["choices"]:
        choices = [*one["choices"], *(value for value in values if value not in one["choices"])]
        places = {value: number / max(1, len(choices) - 1) for number, value in enumerate(choices)}
        return Line(name, lambda value: places[value], tuple((at, str(value)) for value, at in places.items()))
    numbers = [float(value) for value in (one["low"], one["high"], *values) if wording.is_number(value)]
    low, high = min(numbers), max(numbers)
    if one["log"] and low > 0:
        scale = Scale(math.log10(low), math.log10(high), 0, 1)
        powers = range(math.ceil(scale.low - 1e-9), math.floor(scale.high + 1e-9) + 1)
        marks = {scale(power): spelled(10.0**power) for power in powers}
        return Line(name, lambda value: scale(math.log10(value)), tuple(marks.items()))
    linear = Scale(low, high, 0, 1)
    return Line(name, linear, tuple((linear(value), label) for value, label in linear.ticks(4)))


def values_axis(found: Mapping[str, Any]) -> Line:
    """That of the value: of the trials that ended; what was pruned far above lies at its end."""
    done = [trial["value"] for trial in found["trials"] if trial["state"] == "done"]
    scale = Scale(*padded(done, 0.05), 0, 1)
    return Line(found["unit"], scale, tuple((scale(value), label) for value, label in scale.ticks(4)))


def draw_line(line: Line, number: int, at: Callable[[int, float], tuple[float, float]], wide: bool) -> Markup:
    """An axis with its name and marks."""
    (x1, y1), (x2, y2) = at(number, 0.0), at(number, 1.0)
    parts = [tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="whisker", opacity=0.35)]
    if wide:
        parts.append(tag("text", line.name, x=x1, y=TOP - 16, class_="middle"))
    else:
        parts.append(tag("text", line.name, x=x1, y=y1 - 10))
    for share, label in line.ticks:
        x, y = at(number, share)
        if wide:
            parts.append(tag("text", wording.visible(label), x=x - 7, y=y + 4, class_="axis end"))
        else:
            side = "axis" if share < 0.04 else "axis end" if share > 0.96 else "axis middle"
            parts.append(tag("text", wording.visible(label), x=x, y=y + 16, class_=side))
        ends = {"x1": x - 4, "x2": x + 4, "y1": y, "y2": y} if wide else {"x1": x, "x2": x, "y1": y - 4, "y2": y + 4}
        parts.append(tag("line", **ends, class_="whisker", opacity=0.35))
    return tag("g", *parts, class_="counted")


def look(trial: Trial, found: Mapping[str, Any]) -> tuple[str, str, float]:
    """The colour of a trial, the class of its line, and how much it stands out: the better, the more."""
    if trial["trial"] == found["best"]:
        return "c0", "curve", 1.0
    if trial["trial"] == 0:
        return "c1", "curve", 1.0
    if trial["state"] != "done":
        return "counted", "joint", 0.4
    done = sorted(one["value"] for one in found["trials"] if one["state"] == "done")
    return "c2", "curve", 0.65 - 0.5 * done.index(trial["value"]) / len(done)


def draw_trial(
    trial: Trial, lines: list[Line], at: Callable[[int, float], tuple[float, float]], how: tuple[str, str, float]
) -> Markup:
    """The line of a trial, through each setting that it has."""
    colour, kind, opacity = how
    values = [*trial["settings"].values(), trial["value"]]
    points = [at(n, line.share(v)) for n, (line, v) in enumerate(zip(lines, values, strict=True)) if v is not None]
    return tag("g", tag("title", told(trial)), path(points, class_=kind), class_=colour, opacity=f"{opacity:.2f}")


def draw_course(found: Mapping[str, Any], width: int, ident: str) -> Markup:
    """Each trial's value in the order in which they began, and the best up to then."""
    done = [trial for trial in found["trials"] if trial["state"] == "done"]
    left, bottom = 44, 220
    x = Scale(0, max(1, *(trial["trial"] for trial in found["trials"])), left + 8, width - 14)
    y = Scale(*padded([trial["value"] for trial in done], 0.06), bottom, 16)
    grid = [
        tag("line", x1=left, x2=width - 8, y1=y(value), y2=y(value), class_="grid")
        + tag("text", label, x=left - 6, y=y(value) + 4, class_="axis end")
        for value, label in y.ticks(5)
    ]
    below = [
        tag("text", label, x=x(value), y=bottom + 18, class_="axis middle")
        for value, label in x.ticks(6)
        if value == round(value)
    ]
    steps, low = [], math.inf
    for trial in done:
        steps += [] if low == math.inf else [(x(trial["trial"]), y(low))]
        low = min(low, trial["value"])
        steps.append((x(trial["trial"]), y(low)))
    dots = [
        tag(
            "g", tag("circle", tag("title", told(t)), cx=x(t["trial"]), cy=y(t["value"]), r=4.5, class_="dot"), class_=c
        )
        for t, c in ((t, look(t, found)[0]) for t in done)
    ]
    level = [y(t["value"]) for t in done if t["trial"] == 0]
    default = [tag("g", path([(left, at), (width - 8, at)], class_="level"), class_="c1") for at in level]
    return picture(
        ident,
        "The value of each trial, and the best up to then",
        f"From {done[0]['value']:.3f} to {low:.3f} {found['unit']}.",
        width,
        bottom + 42,
        *grid,
        *below,
        tag("text", "trial", x=(left + width) / 2, y=bottom + 36, class_="axis middle"),
        *default,
        tag("g", path([*steps, (x.end, y(low))], class_="curve"), class_="c0"),
        *dots,
    )
