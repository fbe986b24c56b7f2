"""Curves over the seconds of training, each named at its end; what was counted, not trained, as dashed levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

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


def draw_curves(lines: list[Line], title: str, unit: str, width: int, ident: str) -> Markup:
    """One panel. The steep beginning runs out at the top, so that the end, which is compared, has the room."""
    wide = width > 500
    last = max((line.points[-1][0] for line in lines if line.points), default=0) or 1
    low, high = padded(worth_seeing(lines, last), 0.04)
    bottom = TOP + max(280 if wide else 230, LABEL * len(lines))
    labels = LETTER * max(len(label(line, wide)) for line in lines) + 22
    x = Scale(0, last, 44, width - labels)
    y = Scale(high, low, TOP, bottom)
    heights = keep_apart([y(line.last) for line in lines], LABEL, TOP + 2, bottom - 2)
    divisor, name = clock(last)
    box = tag("clipPath", tag("rect", x=x.start, y=TOP, width=x.end - x.start, height=bottom - TOP), id=f"{ident}-box")
    return picture(
        ident,
        title,
        f"{unit[0].upper()}{unit[1:]} at the end: " + "; ".join(label(line, True) for line in in_order(lines)) + ".",
        width,
        bottom + 44,
        box,
        draw_frame(x, y, bottom, divisor, 6 if wide else 3),
        tag("text", name, x=(x.start + x.end) / 2, y=bottom + 38, class_="axis middle"),
        *(draw_line(line, x, y, at, wide, f"url(#{ident}-box)") for line, at in zip(lines, heights, strict=True)),
    )


def worth_seeing(lines: list[Line], last: float) -> list[float]:
    """The values that the panel must have room for: all but those of the first eighth of the time."""
    late = [y for line in lines for x, y in line.points if x >= last / 8]
    return late + [line.last for line in lines]


def in_order(lines: list[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: line.last)


def label(line: Line, wide: bool) -> str:
    return f"{line.name} {line.last:.2f}" if wide else line.name


def clock(last: float) -> tuple[float, str]:
    """The unit of time that suits a run of `last` seconds."""
    if last <= 300:
        return 1, "seconds of training"
    return (60, "minutes of training") if last <= 18000 else (3600, "hours of training")


def draw_frame(x: Scale, y: Scale, bottom: float, divisor: float, wanted: int) -> Markup:
    times = Scale(x.low / divisor, x.high / divisor, x.start, x.end)
    across = [
        tag("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid")
        + tag("text", text, x=x.start - 8, y=y(value) + 4, class_="axis end")
        for value, text in Scale(y.high, y.low, bottom, TOP).ticks(5)
    ]
    below = [tag("text", text, x=times(t), y=bottom + 18, class_="axis middle") for t, text in times.ticks(wanted)]
    return Markup("").join([*across, *below])


def draw_line(line: Line, x: Scale, y: Scale, label_at: float, wide: bool, box: str) -> Markup:
    """The curve or level, its end, and its name beside it."""
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
    leader = path([(end_x + 6, end_y), (x.end + 8, end_y), (name_x - 3, label_at)], class_="leader")
    name = tag("text", label(line, wide), x=name_x, y=label_at + 4.5, class_="name")
    return tag("g", *drawn, leader, name, class_=line.colour)
