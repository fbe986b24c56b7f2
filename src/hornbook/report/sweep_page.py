"""The page of `hornbook sweep`: which settings were best, against the default, and every trial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hornbook.atomic import write_text
from hornbook.report import wording
from hornbook.report.page import WIDTHS, template
from hornbook.report.sweep_chart import Trial, draw_course, draw_parallel, spelled

__all__ = ["PAGE", "render_sweep", "spelled", "sweep_table", "write_sweep"]

PAGE = "report.html"
SHOWN = 10
"""Trials that the table in the terminal has."""


def write_sweep(folder: Path, found: Mapping[str, Any]) -> Path:
    """Write the page of what `sweeping.sweep` found into `folder`, in one step; returns where it is."""
    path = folder / PAGE
    write_text(path, render_sweep(found))
    return path


def render_sweep(found: Mapping[str, Any]) -> str:
    """The HTML text; the same input gives the same text."""
    rows = [*ranked(found), *(trial for trial in found["trials"] if trial["state"] != "done")]
    charts = [
        (size, draw_parallel(found, width, f"parallel-{size}"), draw_course(found, width, f"course-{size}"))
        for size, width in WIDTHS.items()
        if ranked(found)
    ]
    return template("sweep.html.jinja").render(
        title=wording.visible(f"A sweep of {found['model']} on {found['data']}"),
        result=headline(found),
        command=wording.visible(found["command"]),
        facts=[(name, wording.visible(value)) for name, value in facts(found)],
        charts=charts,
        head=head(found),
        rows=[(trial, cells(trial)) for trial in rows],
        best=found["best"],
        unit=found["unit"],
    )


def ranked(found: Mapping[str, Any]) -> list[Trial]:
    """The trials that ended, the best first."""
    return sorted((trial for trial in found["trials"] if trial["state"] == "done"), key=lambda one: one["value"])


def headline(found: Mapping[str, Any]) -> str:
    """The main result in one sentence."""
    order = ranked(found)
    if not order:
        return "No trial has ended yet."
    best, default = order[0], next((one for one in order if one["trial"] == 0), None)
    values = ", ".join(f"{name} {spelled(value)}" for name, value in best["settings"].items())
    told = f"{best['value']:.3f} {found['unit']}"
    if best is default:
        return wording.visible(f"No trial was better than the defaults ({values}): {told}.")
    against = "" if default is None else f", {default['value'] - best['value']:.3f} fewer than with the defaults"
    return wording.visible(f"Best is trial {best['trial']} with {values}: {told}{against}.")


def facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was tried, and what became of it."""
    states = [trial["state"] for trial in found["trials"]]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    return [("Trials", f"{', '.join(counts)}; {found['wanted']} wanted"), *map(tried, found["over"].items())]


def tried(item: tuple[str, Mapping[str, Any]]) -> tuple[str, str]:
    """A dimension in words."""
    name, one = item
    if one["choices"]:
        return name, ", ".join(map(spelled, one["choices"]))
    how = f", in steps of {one['step']}" if one["step"] > 1 else ", logarithmic" if one["log"] else ""
    return name, f"{spelled(one['low'])} to {spelled(one['high'])}{how}"


def head(found: Mapping[str, Any]) -> list[str]:
    unit = found["unit"]
    return ["Trial", unit[0].upper() + unit[1:], *found["over"], "Steps", "Note"]


def cells(trial: Trial) -> list[str]:
    """The figures of a trial, as `head` names them, after its number."""
    values = [
        wording.DASH if value is None else wording.visible(spelled(value)) for value in trial["settings"].values()
    ]
    state = "" if trial["state"] == "done" else trial["state"]
    told = f"{state}: {trial['why']}" if trial["why"] else state
    return [wording.bits(trial["value"]), *values, f"{trial['steps']:,}", wording.visible(told)]


def sweep_table(found: Mapping[str, Any]) -> list[list[str]]:
    """A head, then the best trials, the default among them."""
    order = ranked(found)
    rows = order[:SHOWN] + [trial for trial in found["trials"] if trial["trial"] == 0 and trial not in order[:SHOWN]]
    names = [f"{trial['trial']:03d}{'' if trial['trial'] else ' (defaults)'}" for trial in rows]
    return [head(found), *([name, *cells(trial)] for name, trial in zip(names, rows, strict=True))]
