"""Curves over the time of training, each named at its end; what was counted, not trained, as dashed levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from hornbook.report.axes import SECONDS, Axis
from hornbook.report.rung import Rung
from hornbook.report.svg import LETTER, Scale, keep_apart, padded, path, picture, tag

Points = list[tuple[float, float]]

MOST_POINTS = 300
LABEL = 16
"""Height of a line's label."""
TOP = 14


@dataclass(frozen=True)
class Line:
    """A curve; without points it is a level. `final`, if any, was measured after it and in another way."""

    name: str
    colour: str
    points: Points
    final: float | None = None
    raw: Points = field(default_factory=list)
    """What `points` smooth, drawn faintly."""
    best: tuple[float, float] | None = None
    """A point with a ring around it."""
    lost: Points = field(default_factory=list)
    """Where a step was skipped: crosses at the foot."""

    @property
    def last(self) -> float:
        return self.points[-1][1] if self.final is None else self.final


def validation_lines(rungs: list[Rung], colours: dict[str, str]) -> list[Line]:
    """Bits per byte as evaluated while training, ending in the table's figure; counted rungs are levels."""
    lines = []
    for rung in rungs:
        points = [] if rung.is_counted else thin(rung.curve("validation_bits_per_byte"))
        seconds = rung.figure("seconds")
        if not points and not rung.is_counted and rung.bits is not None and seconds is not None:
            points = [(seconds, rung.bits)]
        if points or (rung.is_counted and rung.bits is not None):
            lines.append(Line(rung.name, colours[rung.name], points, rung.bits))
    return lines


def training_lines(rungs: list[Rung], colours: dict[str, str]) -> list[Line]:
    """Smoothed training loss; not the encoder's, whose loss is about other tokens."""
    smoothed = {r.name: thin(smooth(r.curve("loss"))) for r in rungs if not r.is_encoder}
    return [Line(name, colours[name], points) for name, points in smoothed.items() if points]


def smooth(points: Points) -> Points:
    """Each value the mean of the last fortieth of the run: a trailing mean, so that no point knows what comes after."""
    width = max(1, len(points) // 40)
    sums = np.cumsum([0.0, *(y for _, y in points)])
    means = [(sums[i + 1] - sums[max(0, i + 1 - width)]) / min(i + 1, width) for i in range(len(points))]
    return [(x, float(y)) for (x, _), y in zip(points, means, strict=True)]


def thin(points: Points, most: int = MOST_POINTS) -> Points:
    """At most `most` of the points, evenly, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[i] for i in np.linspace(0, len(points) - 1, most).round().astype(int)]


def late_room(lines: list[Line], last: float) -> tuple[float, float]:
    """Lowest and highest value of a panel: room for all values but those of the first eighth of the way."""
    return padded([*(y for line in lines for _, y in late(line.points, last)), *(line.last for line in lines)], 0.04)


def late(points: Points, last: float) -> Points:
    return [(x, y) for x, y in points if x >= last / 8]


def draw_curves(
    lines: list[Line],
    title: str,
    unit: str,
    width: int,
    ident: str,
    axis: Axis = SECONDS,
    room: Callable[[list[Line], float], tuple[float, float]] = late_room,
    digits: int = 2,
) -> Markup:
    """One panel. With `late_room` the steep beginning runs out at the top, so that the end, which is compared, has the
    room. `digits` are the decimals of the figures at the ends."""
    wide = width > 500
    last = max((line.points[-1][0] for line in lines if line.points), default=0) or 1
    low, high = room(lines, last)
    bottom = TOP + max(280 if wide else 230, LABEL * len(lines))
    labels = LETTER * max(len(label(line, wide, digits)) for line in lines) + 30
    x = Scale(0, last, 44, width - labels)
    y = Scale(high, low, TOP, bottom)
    heights = keep_apart([y(line.last) for line in lines], LABEL, TOP + 2, bottom - 2)
    divisor, name = axis.unit(last)
    box = tag("clipPath", tag("rect", x=x.start, y=TOP, width=x.end - x.start, height=bottom - TOP), id=f"{ident}-box")
    ends = "; ".join(label(line, True, digits) for line in in_order(lines))
    return picture(
        ident,
        title,
        f"{unit[0].upper()}{unit[1:]} at the end: {ends}.",
        width,
        bottom + 44,
        box,
        draw_frame(x, y, bottom, divisor, 6 if wide else 3),
        tag("text", name, x=(x.start + x.end) / 2, y=bottom + 38, class_="axis middle"),
        *(draw_raw(line, x, y, f"url(#{ident}-box)") for line in lines if line.raw),
        *(
            draw_line(line, x, y, at, label(line, wide, digits), f"url(#{ident}-box)")
            for line, at in zip(lines, heights, strict=True)
        ),
        *(draw_lost(line, x, bottom) for line in lines if line.lost),
    )


def in_order(lines: list[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: line.last)


def label(line: Line, wide: bool, digits: int = 2) -> str:
    """The name and the figure; on a phone the name, or the figure of what needs no name."""
    figure = f"{line.last:.{digits}f}"
    return f"{line.name} {figure}".strip() if wide else line.name or figure


def draw_frame(x: Scale, y: Scale, bottom: float, divisor: float, wanted: int) -> Markup:
    times = Scale(x.low / divisor, x.high / divisor, x.start, x.end)
    across = [
        tag("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid")
        + tag("text", text, x=x.start - 8, y=y(value) + 4, class_="axis end")
        for value, text in Scale(y.high, y.low, bottom, TOP).ticks(5)
    ]
    below = [tag("text", text, x=times(t), y=bottom + 18, class_="axis middle") for t, text in times.ticks(wanted)]
    return Markup("").join([*across, *below])


def draw_raw(line: Line, x: Scale, y: Scale, box: str) -> Markup:
    """Under all curves, so that it hides none."""
    return tag("g", path([(x(a), y(b)) for a, b in line.raw], class_="raw", clip_path=box), class_=line.colour)


def draw_line(line: Line, x: Scale, y: Scale, label_at: float, named: str, box: str) -> Markup:
    """The curve or level, its end, its best point, and its name beside it."""
    end_x, end_y = (x(line.points[-1][0]) if line.points else x.end), y(line.last)
    name_x = x.end + 18
    if line.points:
        drawn = [
            path([(x(a), y(b)) for a, b in line.points], class_="curve", clip_path=box),
            path([(end_x, y(line.points[-1][1])), (end_x, end_y)], class_="joint"),
            tag("circle", cx=end_x, cy=end_y, r=4, class_="dot"),
        ]
    else:
        drawn = [tag("line", x1=x.start, x2=x.end, y1=end_y, y2=end_y, class_="level")]
    if line.best:
        drawn.append(tag("circle", cx=x(line.best[0]), cy=y(line.best[1]), r=7, class_="ring"))
    leader = path([(end_x + 6, end_y), (x.end + 8, end_y), (name_x - 3, label_at)], class_="leader")
    name = tag("text", named, x=name_x, y=label_at + 4.5, class_="name")
    return tag("g", *drawn, leader, name, class_=line.colour)


def draw_lost(line: Line, x: Scale, bottom: float) -> Markup:
    """A cross at the foot for each skipped step."""
    crosses = [
        path([(x(a) - 4, bottom - 9), (x(a) + 4, bottom - 1)], class_="lost")
        + path([(x(a) - 4, bottom - 1), (x(a) + 4, bottom - 9)], class_="lost")
        for a, _ in line.lost
    ]
    return tag("g", *crosses, class_=line.colour)
