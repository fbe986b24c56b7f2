"""What is tabulated of runs: their figures, their settings and what they ran on, their samples."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hornbook.config import Finetune, Train
from hornbook.progress import duration
from hornbook.report import wording
from hornbook.report.differences import compare, spelled
from hornbook.report.record import Record
from hornbook.report.rung import number, ranked
from hornbook.report.task_words import score_of

ROWS = 12
"""Samples of a run at most."""
DEFAULTS, TASK_DEFAULTS = ({f.name: f.default for f in dataclasses.fields(kind)} for kind in (Train, Finetune))
REPEATED = ("columns", "options")
"""Options that are given once for each of their values."""


# --- figures


@dataclass(frozen=True)
class Column:
    """A figure of all runs."""

    heading: str
    cells: list[str]


def figures(records: list[Record]) -> list[Column]:
    """The columns that say anything, of `records` in their order."""
    best = next(iter(ranked(list(records))), None)
    validation: list[tuple[str, Callable[[Record], str]]] = [
        ("Bits per byte", lambda r: bits(r)),
        ("95 % interval", lambda r: wording.between(r.interval)),
        ("More than the best", lambda r: wording.DASH if best is None or r is best else behind(r, best)),
        ("Word perplexity", lambda r: wording.perplexity(r.validation.get("word_perplexity"))),
        ("Score on validation examples", score_of),
        ("Pseudo-perplexity", lambda r: wording.perplexity(r.summary.get("pseudo_perplexity"))),
    ]
    training: list[tuple[str, Callable[[Record], str]]] = [
        ("Parameters", lambda r: wording.count(r.summary.get("parameters"))),
        ("Training tokens", lambda r: wording.count(last(r, "tokens"))),
        ("Steps", lambda r: wording.count(last(r, "step") or None)),
        ("Time", lambda r: time(last(r, "seconds"))),
        ("Tokens/s", lambda r: wording.count(r.summary.get("tokens_per_second"))),
        ("MFU", lambda r: wording.percent(r.summary.get("mfu"))),
        ("Peak memory", lambda r: wording.memory(r.summary.get("peak_memory"))),
        ("FLOPs", lambda r: wording.power(r.summary.get("flops"))),
    ]
    columns = [Column(heading, [cell(r) for r in records]) for heading, cell in validation + training]
    return [column for column in columns if any(cell != wording.DASH for cell in column.cells)]


def bits(record: Record) -> str:
    """On the whole split; of a run on its way its best evaluation, which looks at a part of it."""
    if record.finished or record.best is None or record.evaluated != "validation_bits_per_byte":
        return wording.bits(record.bits)
    return f"{wording.bits(record.best[record.evaluated])} so far"


def behind(record: Record, best: Any) -> str:
    """By how much, document by document, with the interval of that."""
    found = compare(record, best)
    return wording.DASH if found is None else f"{wording.signed(found[0])} ({spelled(found)})"


def last(record: Record, key: str) -> float | None:
    """A figure of the summary, or of the last line of the log that has it."""
    name = {"step": "steps"}.get(key, key)
    found = [number(record.summary.get(name)), *(number(line.get(key)) for line in reversed(record.log))]
    return next((value for value in found if value is not None), None)


def time(seconds: float | None) -> str:
    return wording.DASH if seconds is None else f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


# --- settings


@dataclass(frozen=True)
class Setting:
    """A row of the settings: what each run has, and whether that is worth a look."""

    name: str
    values: list[str]
    marked: bool
    """Of one run: it is not the default. Of several: they differ."""


def settings(records: list[Record]) -> list[Setting]:
    """Of train.json."""
    rows = compared([{k: v for k, v in r.settings.items() if k not in ("out", "total_steps")} for r in records])
    if len(records) > 1:
        return rows
    told, usual = records[0].settings, defaults(records[0])
    return [Setting(s.name, s.values, s.name not in usual or changed(usual, s.name, told.get(s.name))) for s in rows]


def defaults(record: Record) -> dict[str, Any]:
    """Of the command that makes such runs."""
    return TASK_DEFAULTS if record.is_taught else DEFAULTS


def engines(records: list[Record]) -> list[Setting]:
    """What the runs were computed with, where their summaries say it."""
    rows = compared([r.engine for r in records])
    return [Setting(s.name, s.values, len({*s.values} - {wording.DASH}) > 1) for s in rows]


def compared(sources: list[dict[str, Any]]) -> list[Setting]:
    names = list(dict.fromkeys(name for source in sources for name in source))
    rows = [(name, [shown(source.get(name)) for source in sources]) for name in names]
    rows = [(name, values) for name, values in rows if any(value != wording.DASH for value in values)]
    return [Setting(wording.visible(name), values, len(set(values)) > 1) for name, values in rows]


def shown(value: Any) -> str:
    if value is None or value == []:
        return wording.DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value if isinstance(value, str) else json.dumps(value)
    hashed = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return f"sha256 {text[:12]}" if hashed else wording.visible(text)


def changed(usual: dict[str, Any], name: str, value: Any) -> bool:
    default = usual.get(name)
    return value != (list(default) if isinstance(default, tuple) else default)


def command(record: Record) -> str:
    """The command line that trains such a run again; its folder and its trackers are for the reader to name."""
    told, usual, left = record.settings, defaults(record), ["model", "out", "track"]
    words = ["hornbook", "train", str(told.get("model", record.name))]
    if record.is_taught:
        words = ["hornbook", "finetune", words[-1], str(told.get("data", ""))]
        left += ["data"]
        told = told | {"context": told.get("context_of_examples")}  # what is saved is the width of the rows
    if told.get("like") and told.get("minutes"):
        left += ["steps"]  # of the log that it goes by
    for name, value in told.items():
        if name in usual and name not in left and changed(usual, name, value) and value is not None:
            words += option(name, value)
    return wording.visible(shlex.join(words))


def option(name: str, value: Any) -> list[str]:
    """Its words on the command line."""
    flag = f"--{name.replace('_', '-')}"
    values = value if isinstance(value, list) else [] if value is True else [value]
    spelled = [wording.exactly(v) if isinstance(v, float) else str(v) for v in values]
    return [word for v in spelled for word in (flag, v)] if name in REPEATED else [flag, *spelled]


# --- skipped steps


def skips(records: list[Record]) -> list[tuple[str, str, str, str]]:
    """Run, step, batch and reason of each step that was left out."""
    return [
        (r.name, wording.count(line.get("step")), wording.count(line.get("batch")), shown(line["skipped"]))
        for r in records
        for line in r.log
        if "skipped" in line
    ]


# --- samples


@dataclass(frozen=True)
class Sample:
    """What a run wrote at a step."""

    step: str
    figure: str
    prompt: str
    text: str
    best: bool


def samples(record: Record) -> list[Sample]:
    """Those of its evaluations, the first, the best and the last among them."""
    spoken = [line for line in record.log if isinstance(line.get("sample"), str)]
    best = record.best
    places = {int(i) for i in np.linspace(0, len(spoken) - 1, min(len(spoken), ROWS)).round()}
    chosen = [line for i, line in enumerate(spoken) if i in places or line is best]
    return [sample(record, line, line["sample"], line is best) for line in chosen]


def final_sample(record: Record) -> Sample | None:
    """Of the finished run; of one on its way the latest."""
    if isinstance(text := record.summary.get("sample"), str):
        return sample(record, {}, text, False)
    return next(iter(samples(record)[-1:]), None)


def sample(record: Record, line: dict[str, Any], text: str, best: bool) -> Sample:
    prompt, text = wording.visible(str(record.settings.get("prompt", ""))), wording.visible(text)
    prompt = prompt if prompt and text.startswith(prompt) else ""
    figure = wording.bits(number(line.get(record.evaluated)))
    return Sample(wording.count(line.get("step")), figure, prompt, text.removeprefix(prompt), best)
