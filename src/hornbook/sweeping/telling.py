"""What a sweep found, as plain figures for the table, the page and JSON."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hornbook import models
from hornbook.config import Sweep
from hornbook.run import read_log
from hornbook.small_files import read_object
from hornbook.sweeping.space import Dimension, train_settings
from hornbook.sweeping.study import OTHER_UNIT, TRIALS, UNIT, name_of, places
from hornbook.training.origin import origin
from hornbook.training.pretrain import resolve

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

STATES = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "at work", "WAITING": "waiting"}


def found_by(settings: Sweep, dimensions: list[Dimension], study: Study, folder: Path) -> dict[str, Any]:
    """Facts, and a row a trial, by place; `best` is that of the lowest value, None where no trial has ended.

    `value` is bits per byte of the validation split (or what `unit` says), of a pruned trial its last
    evaluation's.
    """
    unit = study.user_attrs.get(UNIT, "bits per byte")
    rows = [row(settings, dimensions, folder, unit, *one) for one in sorted(places(study).items())]
    done = [one for one in rows if one["state"] == "done"]
    return {
        "model": settings.model,
        "data": settings.data,
        "command": command(settings),
        "over": {one.name: {**dataclasses.asdict(one), "choices": list(one.choices)} for one in dimensions},
        "wanted": settings.trials,
        "unit": unit,
        "best": min(done, key=lambda one: one["value"])["trial"] if done else None,
        "trials": rows,
    }


def row(
    settings: Sweep, dimensions: list[Dimension], folder: Path, unit: str, place: int, trial: FrozenTrial
) -> dict[str, Any]:
    """One trial; one that was scored in another unit, before the defaults were, counts as failed."""
    other = trial.user_attrs.get(UNIT, unit)
    out, state = folder / TRIALS / name_of(place), STATES[trial.state.name]
    last = trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None
    lines = read_log(out)
    if other != unit and state in ("done", "pruned"):
        state = "failed"
    return {
        "trial": place,
        "state": state,
        "value": trial.value if state == "done" else last if state == "pruned" else None,
        "settings": {one.name: trial.params.get(one.name) for one in dimensions}
        if place
        else defaults(settings, dimensions, out),
        "steps": max((line.get("step", 0) for line in lines), default=0),
        "folder": str(out),
        "why": trial.user_attrs.get("why", "" if other == unit else OTHER_UNIT.format(other, unit)),
    }


def defaults(settings: Sweep, dimensions: list[Dimension], out: Path) -> dict[str, Any]:
    """What the first trial has: as its run resolved it, else as the named size has it; None for what has no value."""
    plain = train_settings(settings, {}, str(out))
    known = dataclasses.asdict(resolve(plain))
    if (path := out / "train.json").exists():
        known |= read_object(path)
    size = models.find_size(settings.model).resolved() if origin(settings.model) is None else None
    return {
        one.name: known[one.name] if known.get(one.name) is not None else getattr(size, one.name, None)
        for one in dimensions
    }


def command(settings: Sweep) -> str:
    """The command line that gives these settings."""
    words = ["hornbook", "sweep", settings.model]
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name in ("model", "json", "out") or value == field.default:
            continue
        option = f"--{field.name.replace('_', '-')}"
        if field.name == "over":
            words += [word for spec in value for word in (option, spec)]
        elif isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        else:
            words += [option, *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)
