"""The page of runs: one, or several side by side; finished ones, and those that are still on their way."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hornbook.atomic import write_text
from hornbook.progress import duration
from hornbook.report import run_tables, task_charts, task_words, wording
from hornbook.report.evaluations import Evaluation, evaluations
from hornbook.report.page import COLOURS, measured_on, result, template
from hornbook.report.panels import axes_of, draw_panels
from hornbook.report.record import FALLING, Record, open_records
from hornbook.report.remarks import about_best
from hornbook.report.rung import number, ranked
from hornbook.report.scores import scores_table
from hornbook.report.status import Status, status_of

DIFFER = ("out", "seed", "track", "total_steps")
"""Settings in which repetitions of one run differ."""

ONE_SEED = "Intervals say how much the choice of documents matters, not how much another seed would."


def write_runs(runs: tuple[str, ...], out: str | None) -> Path:
    """Write the page of the runs in these folders; returns where it is. UserError for what is no run."""
    records = open_records(runs)
    single = len(runs) == 1
    name = "report.html" if single and records[0].folder == Path(runs[0]) else "runs.html"
    path = Path(out) if out else Path(runs[0] if single else ".") / name
    write_text(path, render_runs(records, time.time()))
    return path


def render_runs(records: list[Record], now: float) -> str:
    """The HTML text; `now` in seconds since 1970 tells the runs that are on from those that stopped."""
    colours, states = colour(records), {r.name: status_of(r, now) for r in records}
    single = len(records) == 1
    axes = axes_of(records)
    settings = run_tables.settings(records)
    tasks, damaged = evaluations(records[0]) if single and records[0].is_taught else ([], [])
    best_first: list[Any] = ranked(list(records))
    order = best_first + [r for r in records if r.bits is None]
    return template("runs.html.jinja").render(
        title=title(records),
        result=headline(records, states, tasks),
        tasks=[task_part(records[0], found, f"task{k}") for k, found in enumerate(tasks)],
        damaged=damaged,
        standing=[progress(r, states[r.name]) for r in records if not r.finished],
        written=time.strftime("%Y-%m-%d %H:%M", time.localtime(now)),
        single=single,
        command=run_tables.command(records[0]) if single and records[0].settings else "",
        records=records,
        colours=colours,
        order=order,
        ranked=best_first,
        columns=run_tables.figures(order),
        measured_on=measured_on(list(records), "run"),
        remarks=remarks(records),
        axes=axes,
        axis=next((a.key for a in axes if a.key == ("step" if single else "seconds")), axes[0].key if axes else ""),
        charts=draw_panels(records, colours),
        skips=run_tables.skips(records),
        tokenizers=len({r.settings.get("tokenizer_hash") for r in records}),
        settings=[s for s in settings if s.marked],
        alike=[s for s in settings if not s.marked],
        engines=run_tables.engines(records),
        samples=[(r, run_tables.final_sample(r), run_tables.samples(r)) for r in records],
    )


def colour(records: list[Record]) -> dict[str, str]:
    """Classes of the style sheet: the trained runs in turn, dashed when all colours are used; grey for counted ones."""
    trained = [r.name for r in records if not r.is_counted]
    classes = {name: f"c{i % COLOURS} round{min(i // COLOURS, 2)}" for i, name in enumerate(trained)}
    return {r.name: classes.get(r.name, "counted").removesuffix(" round0") for r in records}


def title(records: list[Record]) -> str:
    if len(records) > 1:
        return f"{len(records)} runs"
    data = records[0].summary.get("data") or records[0].settings.get("data")
    return f"{records[0].name} on {wording.visible(str(data))}" if data else records[0].name


def task_part(record: Record, found: Evaluation, ident: str) -> dict[str, Any]:
    """What the page shows of an evaluation."""
    mark = task_words.plain(found.mark) or "score"
    return {
        "title": f"Scored on {task_words.where(found)}",
        "verdict": task_words.verdict(found),
        "rows": scores_table(found.table, record.name),
        "note": found.note,
        "confusion": task_words.confusion(found),
        "calibration": task_charts.calibration(found, f"{ident}-calibration"),
        "bins": found.calibration,
        "lengths": task_charts.lengths(found, f"{ident}-lengths"),
        "mark": f"{mark[:1].upper()}{mark[1:]}",
        "samples": found.samples,
        "writes": any("output" in sample for sample in found.samples),
        "mistakes": found.mistakes,
        "spotless": bool(found.confusion) and not found.mistakes,
    }


def headline(records: list[Record], states: dict[str, Status], tasks: list[Evaluation]) -> str:
    """The main result in one sentence, or how far the only run is. `tasks`: what the only run was scored on."""
    only = records[0]
    if len(records) == 1 and not only.finished:
        return progress(only, states[only.name])
    if tasks:
        return task_words.reached(only.name, tasks[0])
    if len(records) > 1 and not any(r.bits is not None for r in records) and any(r.is_taught for r in records):
        return task_words.of_several(records)
    if len(records) == 1 and only.bits is None and only.is_encoder:
        figure = wording.perplexity(only.summary.get("pseudo_perplexity"))
        return f"{only.name} has a pseudo-perplexity of {figure} a token: it guesses with both sides in view."
    if len(different := texts(records)) > 1:
        named = wording.visible(wording.listing(sorted(different)))
        return f"The runs were measured on different texts ({named}): their figures do not compare."
    also = " Those that were taught a task have its score in the table." if any(r.is_taught for r in records) else ""
    return f"{result(list(records), 'run')}{also}"


def progress(record: Record, status: Status) -> str:
    """How far a run is, and how good so far."""
    doing = "is being trained" if status.state == "running" else "stopped before its end"
    done = "" if status.share is None else f": {100 * status.share:.0f} % done"
    left = f", about {duration(status.left)} left" if status.state == "running" and status.left is not None else ""
    still = f", {duration(status.still)} ago" if status.state == "stopped" else ""
    so_far = ""
    if best := record.best:
        figure, step = wording.bits(best[record.evaluated]), wording.count(best.get("step"))
        told = [record.evaluated_name, figure] if record.evaluated not in FALLING else [figure, record.evaluated_name]
        so_far = f" Its best evaluation: {' '.join(told)} at step {step}."
    return f"{record.name} {doing}{done}{left}{still}.{so_far}"


def remarks(records: list[Record]) -> list[str]:
    """What the figures of several runs say."""
    order, seeds = ranked(list(records)), about_seeds(records)
    best = about_best(order) if len(texts(records)) < 2 else []
    return [*best, *(seeds or [ONE_SEED])] if len(order) > 1 else []


def texts(records: Sequence[Record]) -> set[str]:
    """What they were measured on."""
    return {str(r.summary.get("data")) for r in records if r.bits is not None}


def about_seeds(records: list[Record]) -> list[str]:
    """The spread of runs that differ in their seed only."""
    groups: dict[str, list[Record]] = {}
    for r in records:
        if r.bits is not None and r.settings:
            groups.setdefault(repr({k: v for k, v in r.settings.items() if k not in DIFFER}), []).append(r)
    return [seed_sentence(group) for group in groups.values() if len({r.settings.get("seed") for r in group}) > 1]


def seed_sentence(group: list[Record]) -> str:
    found: list[Any] = [number(r.bits) for r in group]
    return (
        f"{wording.listing([r.name for r in group])} differ in their seed only: {statistics.mean(found):.3f} bits per "
        f"byte on average, {min(found):.3f} to {max(found):.3f}, with a standard deviation of "
        f"{statistics.stdev(found):.3f}."
    )
