"""The curves of runs: what was evaluated, the loss, the learning rate, the gradient, the speed; along any axis."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from statistics import median

import numpy as np
from markupsafe import Markup

from hornbook.evaluation.references import Reference
from hornbook.report.axes import SECONDS, STEPS, TOKENS, Axis
from hornbook.report.curves import Line, Points, draw_curves, late, late_room, smooth, thin
from hornbook.report.record import Record
from hornbook.report.rung import number
from hornbook.report.svg import padded

WIDTHS = {"wide": (772, 300), "narrow": (340, 150)}
"""Every chart is drawn for a desk and for a phone: its width, and the points of a curve at most."""

AXES = (STEPS, TOKENS, SECONDS)
SPEEDS = 60
"""Points of a curve of tokens a second: each is a median."""
MOST_RAW = 4
"""More runs than this are shown without their raw figures, which would cover each other."""
UNITS = {1e-9: "billionths", 1e-6: "millionths", 1e-3: "thousandths", 1.0: "", 1e3: "thousands", 1e6: "millions"}

Room = Callable[[list[Line], float], tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One chart. `line` makes a run's curve along an axis, without name and colour; None where it has none."""

    ident: str
    title: str
    caption: str
    line: Callable[[Record, Axis], Line | None]
    room: Room = late_room
    digits: int = 2
    scaled: bool = False
    """Figures are divided by a power of a thousand, so that the axis shows short ones."""
    figure: str = ""
    """Its name in the log, by which well-known models' levels are found."""


@dataclass(frozen=True)
class Chart:
    """A panel as drawn: for each axis by its key, the drawings by size."""

    title: str
    caption: str
    drawings: list[tuple[str, list[tuple[str, Markup]]]]


def axes_of(records: list[Record]) -> list[Axis]:
    """Those along which any run can be drawn."""
    return [axis for axis in AXES if any(r.curve("loss", axis.key) for r in records)]


def draw_panels(records: list[Record], colours: dict[str, str]) -> list[Chart]:
    """All charts that have something to show."""
    charts = (draw_panel(panel, records, colours) for panel in (*evaluations(records), *panels(records)))
    return [chart for chart in charts if chart]


def draw_panel(panel: Panel, records: list[Record], colours: dict[str, str]) -> Chart | None:
    drawings, unit, told = [], "", [panel.caption]
    for axis in axes_of(records):
        lines = [named(line, r, records, colours) for r in records if (line := panel.line(r, axis))]
        if any(line.points for line in lines):
            lines += [Line(level.name, "counted", [], level.value) for level in levels(panel, records)]
            divisor = magnitude(lines) if panel.scaled else 1.0
            unit = UNITS[divisor]
            lines = [divided(line, divisor) for line in lines]
            title = f"{panel.title}, in {unit}" if unit else panel.title
            drawings.append((axis.key, [(size, draw(panel, title, lines, axis, size)) for size in WIDTHS]))
            told = [panel.caption, *explained(lines), *map(sourced, levels(panel, records))]
    return Chart(title, " ".join(told), drawings) if drawings else None


def levels(panel: Panel, records: list[Record]) -> list[Reference]:
    """What well-known models reach, each once."""
    return list(dict.fromkeys(level for record in records for level in record.levels.get(panel.figure, [])))


def sourced(level: Reference) -> str:
    return f"Dashed: {level.name}, {level.value:g} ({level.protocol}; {level.source})."


def explained(lines: list[Line]) -> list[str]:
    """What the marks mean that are there."""
    raw = ["Faint: the steps themselves, whose spikes may run out of the panel."] if any(x.raw for x in lines) else []
    return raw + (["Crosses at the foot: skipped steps."] if any(x.lost for x in lines) else [])


def draw(panel: Panel, title: str, lines: list[Line], axis: Axis, size: str) -> Markup:
    width, most = WIDTHS[size]
    thinned = [replace(line, points=thin(line.points, most), raw=extremes(line.raw, most // 2)) for line in lines]
    ident = f"{panel.ident}-{axis.key}-{size}"
    room = partial(whole_room, panel.room, lines)
    return draw_curves(thinned, f"{title}, by {axis.name}", title, width, ident, axis, room, panel.digits)


def whole_room(room: Room, lines: list[Line], thinned: list[Line], last: float) -> tuple[float, float]:
    """The room that all points need, not those few that are drawn."""
    return room(lines, last)


def named(line: Line, record: Record, records: list[Record], colours: dict[str, str]) -> Line:
    """The line with its run's name and colour; a single run needs no name."""
    raw = line.raw if len(records) <= MOST_RAW else []
    name = short(record.name) if len(records) > 1 else ""
    return replace(line, name=name, colour=colours[record.name], raw=raw)


def short(name: str, most: int = 22) -> str:
    """A name that leaves room for the curves: its beginning and its end."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"


# --- what is drawn


def panels(records: list[Record]) -> list[Panel]:
    """Those of every run; losses are means over what the runs learn from."""
    targets = list(dict.fromkeys(r.target for r in records if not r.is_counted)) or ["token"]
    if targets == ["token"]:
        return list(PANELS)
    title = f"Training loss, in nats per {' or '.join(targets)}"
    told = f"{PANELS[0].caption} Such losses do not compare." if len(targets) > 1 else PANELS[0].caption
    return [replace(PANELS[0], title=title, caption=told), *PANELS[1:]]


def evaluations(records: list[Record]) -> list[Panel]:
    """A panel for each figure that the runs are evaluated by; only bits per byte compare across tokenisers."""
    measured = {
        "validation_bits_per_byte": "Bits per byte on the validation text",
        "validation_loss": "Loss on the validation text, in nats per token",
        "validation_masked_loss": "Loss on hidden tokens of the validation text, in nats",
    }
    taught = [r for r in records if r.is_taught]
    losing = [r for r in records if r.evaluated == "validation_loss" or r.levels.get("validation_loss")]
    if losing and all(r.is_taught for r in losing):
        targets = list(dict.fromkeys(r.target for r in losing))
        measured["validation_loss"] = f"Loss on the validation examples, in nats per {' or '.join(targets)}"
    kinds = {r.evaluated for r in records} | {key for key in measured if any(r.levels.get(key) for r in records)}
    told = "Evaluations while training, on the first part of the split. The ring marks the best."
    several = len({(r.settings.get("task_name"), r.settings.get("data")) for r in taught}) > 1
    own = "While training; the ring marks the evaluation whose checkpoint was kept." + (
        " Scores on different examples do not compare." if several else ""
    )
    figures = list(dict.fromkeys(key for r in taught for key in watched(r) if key not in measured))
    counted = " Dashed: counted runs, on the whole split." if any(r.is_counted for r in records) else ""
    tasks = dict.fromkeys(key for r in records for key in r.scored)
    drawn = [(key, title, told + counted, evaluation(key)) for key, title in measured.items() if key in kinds]
    drawn += [(key, figure_title(key), own, followed(key)) for key in figures]
    drawn += [(key, task_title(key), "Scored while training.", score(key)) for key in tasks]
    return [Panel(key.replace("_", "-"), title, says, line, digits=3, figure=key) for key, title, says, line in drawn]


MOST_WATCHED = 3
"""Figures of a task that are drawn."""


def watched(record: Record) -> list[str]:
    """The first figures of a finetuned run's evaluations: its own score, and what tells more."""
    return record.task_figures[:MOST_WATCHED]


def figure_title(key: str) -> str:
    """validation_log_loss -> Log loss on the validation examples."""
    name = key.removeprefix("validation_").replace("_", " ")
    return f"{name[:1].upper()}{name[1:]} on the validation examples"


def followed(key: str) -> Callable[[Record, Axis], Line | None]:
    """A figure of a task; the ring is at the evaluation whose checkpoint is the best."""

    def line(record: Record, axis: Axis) -> Line | None:
        points = record.curve(key, axis.key) if key in watched(record) else []
        kept = record.best or {}
        at, value = number(kept.get(axis.key)), number(kept.get(key))
        ring = (at, value) if at is not None and value is not None else None
        return Line("", "", points, best=ring) if points else None

    return line


def task_title(key: str) -> str:
    """hellaswag_accuracy_per_character -> Hellaswag: accuracy per character."""
    task, _, figure = key.partition("_")
    return f"{task.capitalize()}: {figure.replace('_', ' ')}"


def score(key: str) -> Callable[[Record, Axis], Line | None]:
    def line(record: Record, axis: Axis) -> Line | None:
        points = record.curve(key, axis.key)
        return Line("", "", points, best=max(points, key=lambda p: p[1])) if points else None

    return line


def evaluation(key: str) -> Callable[[Record, Axis], Line | None]:
    def line(record: Record, axis: Axis) -> Line | None:
        if record.is_counted:
            shown = record.bits is not None and key == "validation_bits_per_byte"
            return Line("", "", [], record.bits) if shown else None
        wanted = record.evaluated == key or record.levels.get(key)
        points = record.curve(key, axis.key) if wanted else []
        return Line("", "", points, best=min(points, key=lambda p: p[1])) if points else None

    return line


def loss(record: Record, axis: Axis) -> Line | None:
    points = record.curve("loss", axis.key)
    return Line("", "", smooth(points), raw=points, lost=skipped(record, axis)) if points else None


def gradient(record: Record, axis: Axis) -> Line | None:
    points = record.curve("gradient_norm", axis.key)
    return Line("", "", medians(points), raw=points) if points else None


def medians(points: Points) -> Points:
    """At some of the points the median of the last fortieth of the run: a spike moves a mean, but not a median."""
    width = max(1, len(points) // 40)
    places = sorted({int(i) for i in np.linspace(0, len(points) - 1, min(len(points), 300)).round()})
    values = np.array([y for _, y in points])
    return [(points[i][0], float(np.median(values[max(0, i + 1 - width) : i + 1]))) for i in places]


def skipped(record: Record, axis: Axis) -> Points:
    places = [number(line.get(axis.key)) for line in record.log if "skipped" in line]
    return [(x, 0.0) for x in places if x is not None]


def rate(record: Record, axis: Axis) -> Line | None:
    points = record.curve("lr", axis.key)
    return Line("", "", points) if points else None


def speed(record: Record, axis: Axis) -> Line | None:
    """Tokens a second: medians over stretches of the run of what single steps reached, evaluations left out."""
    found: Points = []
    before: tuple[float, float] | None = None
    for entry in record.log:
        x, seconds, tokens = (number(entry.get(key)) for key in (axis.key, "seconds", "tokens"))
        if "loss" not in entry or x is None or seconds is None or tokens is None:
            before = None
            continue
        if before and seconds > before[0] and tokens > before[1]:
            found.append((x, (tokens - before[1]) / (seconds - before[0])))
        before = (seconds, tokens)
    edges = np.linspace(0, len(found), min(len(found), SPEEDS) + 1).round().astype(int)
    points = [(found[b - 1][0], median(y for _, y in found[a:b])) for a, b in pairwise(edges)]
    return Line("", "", points) if points else None


# --- how it is drawn


def from_zero(lines: list[Line], last: float) -> tuple[float, float]:
    return 0.0, 1.06 * max((y for line in lines for _, y in line.points), default=0) or 1.0


def usual(lines: list[Line], last: float) -> tuple[float, float]:
    """Room for the curves and for nearly all of what they smooth: single spikes run out of the panel."""
    return padded([*spread(lines, last), *late_values(lines, last)], 0.04)


def usual_from_zero(lines: list[Line], last: float) -> tuple[float, float]:
    return 0.0, 1.1 * max([*spread(lines, last), *late_values(lines, last)]) or 1.0


def spread(lines: list[Line], last: float) -> list[float]:
    raw = [[y for _, y in late(line.raw, last)] for line in lines]
    return [float(np.percentile(values, q)) for values in raw if values for q in (1, 99)]


def late_values(lines: list[Line], last: float) -> list[float]:
    return [*(y for line in lines for _, y in late(line.points, last)), *(line.last for line in lines)]


def extremes(points: Points, bins: int) -> Points:
    """The lowest and the highest point of each of so many stretches, in their order: no spike is lost in thinning."""
    if len(points) <= 2 * bins:
        return points
    edges = np.linspace(0, len(points), bins + 1).round().astype(int)
    kept: set[int] = set()
    for start, end in pairwise(edges):
        values = [y for _, y in points[start:end]]
        kept |= {int(start + np.argmin(values)), int(start + np.argmax(values))}
    return [points[i] for i in sorted(kept)]


def magnitude(lines: Iterable[Line]) -> float:
    """The power of a thousand that leaves figures of one to three digits before the point."""
    largest = max((abs(y) for line in lines for _, y in line.points), default=0.0)
    return max((unit for unit in UNITS if unit <= largest), default=1.0)


def divided(line: Line, by: float) -> Line:
    return line if by == 1 else replace(line, points=[(x, y / by) for x, y in line.points])


PANELS = (
    Panel(
        "loss",
        "Training loss, in nats per token",
        "Each point is the mean of the last fortieth of the run's steps.",
        loss,
        usual,
    ),
    Panel("lr", "Learning rate", "", rate, from_zero, scaled=True),
    Panel(
        "gradient",
        "Norm of the gradient",
        "Before it was clipped; each point is the median of the last fortieth of the run's steps.",
        gradient,
        usual_from_zero,
    ),
    Panel(
        "speed",
        "Tokens a second",
        "Medians over stretches of the run; evaluations and checkpoints are not counted.",
        speed,
        from_zero,
        scaled=True,
    ),
)
