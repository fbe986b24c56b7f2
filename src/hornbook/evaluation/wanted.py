"""From what a command was given to a task: a published set by its name, a file, or what a run was taught."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from hornbook.config import Evaluate, Finetune
from hornbook.data.remote import is_address
from hornbook.data.sources import named
from hornbook.errors import UserError, unknown
from hornbook.progress import say
from hornbook.small_files import read_object
from hornbook.tasks import Source, Task, open_task, require_packages, task_names, task_of_file
from hornbook.text.corpora import corpus_names
from hornbook.text.files import TABLES, form_of

OWN = ("task", "columns", "target", "options")
"""Fields of Finetune that say how a file is read."""


def named_task(data: str) -> str | None:
    """The task of that name, where there is no file of it."""
    name = data.replace("_", "-")
    return name if name in task_names() and not Path(data).expanduser().exists() else None


def wanted_task(settings: Finetune | Evaluate) -> Task:
    """The task that settings name. UserError for what is neither a published set nor a file."""
    columns = dict(pair.split("=", 1) for pair in settings.columns)
    if isinstance(settings, Finetune):
        columns |= {role: name for role in ("text", "label") if (name := getattr(settings, role))}
    options = dict(pair.split("=", 1) for pair in settings.options)
    assert settings.data is not None
    if name := named_task(settings.data):
        return open_task(name, Source(None, columns, settings.target, 0, options))
    path = Path(settings.data).expanduser()
    if not path.exists():
        raise unknown("task or file", settings.data, task_names())
    name = settings.task or task_of_file(str(path), columns, settings.target)
    return open_task(name, Source(str(path), columns, settings.target, 0, options))


def taught(run: str) -> dict[str, Any]:
    """The settings by which a run was finetuned; empty for any other."""
    path = Path(run).expanduser() / "train.json"
    settings = read_object(path) if path.is_file() else {}
    return settings if "task_name" in settings else {}


def learnt(run: str) -> dict[str, Any]:
    """The text that a run was trained on, and its column; empty for what is no run.

    UserError where that is no one text which is still there.
    """
    path = Path(run).expanduser() / "train.json"
    known = read_object(path) if path.is_file() else {}
    if not (data := known.get("data")):
        return {}
    instead = f"name a text to score it on: hornbook evaluate {run} TEXT"
    if data == "-" or len(named(data)) > 1:
        raise UserError(f"{run} learnt from {'standard input' if data == '-' else data}: {instead}")
    if not (data in corpus_names() or is_address(data) or Path(data).expanduser().exists()):
        raise UserError(f"{data}, from which {run} learnt, is not there: {instead}")
    return {"data": data, "column": known.get("column") or "text"}


def settled(settings: Evaluate) -> tuple[Evaluate, Task | None]:
    """What is left open, from what the run was taught: its data, its columns, a split it did not learn from.

    The task is None for a corpus. UserError for --task with a corpus, and for a task whose packages are not installed.
    """
    known = taught(settings.run)
    if not (settings.data or settings.text or known):
        settings = dataclasses.replace(settings, **learnt(settings.run))
    data = settings.data or known.get("data") or "python-docs"
    changes: dict[str, Any] = {"data": data}
    if known and not settings.data and gone(data):
        raise UserError(f"{data}, from which {settings.run} was taught, is gone: name a file to evaluate it on")
    own = bool(known) and same_place(data, str(known["data"]))
    is_task = named_task(data) is not None or settings.task is not None or bool(settings.columns or settings.target)
    if known and (own or is_task or holds_rows(data)) and Path(data).expanduser().exists() and not settings.text:
        is_task = True
        carried = [name for name in OWN if own or name != "target"]  # the other side of its own file
        changes |= {name: fitting(known, name) for name in carried if not getattr(settings, name)}
        changes["columns"] = changes.get("columns", settings.columns) or tuple(
            f"{role}={known[role]}" for role in ("text", "label") if known.get(role)
        )
        changes["task"] = settings.task or str(known["task_name"])
    elif own:
        changes |= {name: fitting(known, name) for name in ("columns", "options") if not getattr(settings, name)}
    if not is_task or settings.text or (settings.protocol == "tutorial" and named_task(data) is None):
        if settings.task:
            raise UserError(f"--task {settings.task} needs a file of its examples, and {data} is none")
        return dataclasses.replace(settings, data=data), None
    if settings.protocol == "tutorial":
        changes["options"] = (*settings.options, "protocol=plain")
    if known:  # it is measured as it was taught
        changes["context"] = settings.context or known.get("context_of_examples")
        changes["cut"] = settings.cut or known.get("cut")
    settings = dataclasses.replace(settings, **changes)
    task = wanted_task(settings)
    require_packages(task, settings.baselines)
    if own and named_task(data) is None:
        compare_examples(task, known)
    split: Any = settings.split or ("test" if "test" in task.splits else task.splits[-1])
    if settings.split is None and named_task(data) is None and not own:
        split = "all"
    return dataclasses.replace(settings, split=split), task


def compare_examples(task: Task, known: dict[str, Any]) -> None:
    """Say where a file has changed since a run was taught from it: its rows may be in other splits now."""
    examples = list(islice(task.examples("train"), known.get("examples") or None))
    if known.get("examples_hash") not in (None, examples_hash(examples)):
        say(f"{known['data']} has changed since this model was taught: what it is tested on it may have learnt from")


def fitting(known: dict[str, Any], name: str) -> Any:
    value = known.get(name)
    return tuple(value) if isinstance(value, list) else value


def holds_rows(data: str) -> bool:
    """Whether a path is a table, or a folder of tables."""
    path = Path(data).expanduser()
    files = list(path.iterdir()) if path.is_dir() else [path]
    return any(form_of(str(file)) in TABLES for file in files)


def gone(data: str) -> bool:
    """Whether this names a table that is not there."""
    return form_of(data) in TABLES and not Path(data).expanduser().exists()


def same_place(one: str, other: str) -> bool:
    return one == other or Path(one).expanduser().resolve() == Path(other).expanduser().resolve()


def examples_hash(examples: Iterable[Any]) -> str:
    """Of what is learnt from, so that a run does not carry on, and is not measured, with something else unnoticed."""
    whole = hashlib.sha256()
    for example in examples:
        whole.update(repr(example).encode("utf-8", "replace"))
    return whole.hexdigest()
