"""`--like RUN`: the run of another folder once more, on the same machine bit for bit, but for what is given beside it.

A run by the clock is repeated by its log: as many steps, each at the learning rate that it had then, and evaluated
where it was then. Settings of such a repetition hold both `minutes` and `steps`, as no others with `like` do.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

from hornbook.config import Train
from hornbook.errors import UserError
from hornbook.log import read_log
from hornbook.small_files import read_object

LENGTHS = ("steps", "epochs", "minutes")
COURSE = ("lr", "optimizer", "schedule", "warmup", "accumulate")
"""What the learning rates follow from beside the length: a run in which one is changed goes by the clock again."""
OWN = ("out", "like", "track")
"""What a repetition has for itself."""


class Replay(NamedTuple):
    """The course of a run by the clock."""

    factors: list[float]
    """On the learning rate, one a step."""
    evaluated: frozenset[int]
    """Steps after which it was evaluated."""


def like(run: str, **changes: Any) -> Train:
    """The settings that repeat a run with some of them changed, in the folder RUN-again where no other is given.

    Raises UserError as `settings_of` and `settled` do.
    """
    return settled(settings_of(run, **changes))


def settings_of(run: str, **changes: Any) -> Train:
    """The same, before its length is settled: what the command line has for its defaults. UserError for no run."""
    path = Path(run).expanduser() / "train.json"
    if not path.is_file():
        raise UserError(
            f"--like {run}: there is no such run (a folder with the train.json that `hornbook train` writes)"
        )
    known, stated = {field.name for field in dataclasses.fields(Train)}, read_object(path)
    if "task_name" in stated:
        raise UserError(f"--like {run}: that run was finetuned; `hornbook finetune` with its settings repeats it")
    saved = {name: value for name, value in stated.items() if name in known}
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in saved.items()}
    values |= {"out": f"{run.rstrip('/')}-again", "like": run, "track": ()}
    try:
        return Train(**(values | changes))
    except TypeError as error:
        raise UserError(f"{path} does not hold the settings of a run ({error})") from None


def settled(settings: Train) -> Train:
    """Settings that came of `settings_of`, with one length: one that was given takes the place of the run's own, and
    that of a run by the clock becomes the steps that it took.

    UserError where two lengths were given, and for a run by the clock that has not ended.
    """
    assert settings.like is not None
    base = settings_of(settings.like)
    given = changed(settings, base, LENGTHS)
    if len(given) > 1:
        raise UserError(f"--{' and --'.join(given)} are lengths of the same run: give one")
    if given:
        dropped: dict[str, Any] = {name: None for name in LENGTHS if name not in given}
        return dataclasses.replace(settings, **dropped)
    if base.minutes is None:
        return settings
    if changed(settings, base, COURSE):
        return dataclasses.replace(settings, steps=None)
    return dataclasses.replace(settings, steps=base.steps or steps_of(settings.like))


def changed(settings: Train, base: Train, names: tuple[str, ...]) -> list[str]:
    """Those of the named fields that differ."""
    return [name for name in names if getattr(settings, name) != getattr(base, name)]


def steps_of(run: str) -> int:
    """How many steps a run by the clock took; UserError where it has not ended."""
    folder = Path(run).expanduser()
    if not (folder / "summary.json").exists():
        raise UserError(
            f"{run} goes by the clock and has not ended, so that its steps are not known: let it end first, or give "
            "--steps"
        )
    return max((line["step"] for line in read_log(folder)), default=0)


def replay(settings: Train) -> Replay | None:
    """The course that a repetition of a run by the clock takes; None for all other runs.

    `settings` have their learning rate. UserError where the log of that run lacks steps.
    """
    if not (settings.like and settings.minutes and settings.steps):
        return None
    assert settings.lr is not None
    lines = read_log(Path(settings.like).expanduser())
    rates = {line["step"]: line.get("lr") for line in lines if "loss" in line or "skipped" in line}
    if sorted(rates) != list(range(1, settings.steps + 1)):
        raise UserError(
            f"the metrics.jsonl of {settings.like} lacks some of its {settings.steps} steps, by which it is repeated: "
            "give --steps for a run by the schedule"
        )
    factors = [factor(rates[step], settings.lr) for step in range(1, settings.steps + 1)]
    evaluated = (line["step"] for line in lines if any(name.startswith("validation") for name in line))
    return Replay(factors, frozenset(evaluated))


def factor(rate: float | None, peak: float) -> float:
    """The number whose product with `peak` is `rate` to the last bit; 1 for a step that was left out.

    `rate` was such a product, rounded, so that number is the quotient, rounded, or one of its neighbours.
    """
    if rate is None or peak == 0:
        return 1.0
    quotient = rate / peak
    near = (quotient, math.nextafter(quotient, 0.0), math.nextafter(quotient, math.inf))
    return next((number for number in near if peak * number == rate), quotient)


def told(settings: Train, facts: dict[str, Any]) -> str:
    """What a repetition changes, in a line. `settings` leave nothing open; `facts` are what is saved beside them."""
    assert settings.like is not None
    base = settings_of(settings.like)
    saved = read_object(Path(settings.like).expanduser() / "train.json")
    names = tuple(field.name for field in dataclasses.fields(Train) if field.name not in OWN)
    lengths = ("steps",) if settings.minutes and settings.steps else ()
    before = {name: getattr(base, name) for name in changed(settings, base, names) if name not in lengths}
    changes = [f"{name} {old} is now {getattr(settings, name)}" for name, old in before.items() if old != "auto"]
    changes += [
        f"its {name.replace('_', ' ')} is not the same"
        for name, value in facts.items()
        if saved.get(name) not in (None, value)
    ]
    if settings.minutes and not settings.steps:
        changes.append("going by the clock, which gives other steps each time")
    return f"repeating {settings.like} " + (f"with changes: {', '.join(changes)}" if changes else "bit for bit")
