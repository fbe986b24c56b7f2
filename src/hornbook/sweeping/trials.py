"""The work of `hornbook sweep`: trial after trial, each an ordinary run, and what was found."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hornbook.config import Sweep
from hornbook.data.sources import data_name, open_data
from hornbook.errors import PassingError, UserError, WorkError
from hornbook.progress import say
from hornbook.report.sweep_page import spelled, write_sweep
from hornbook.run import read_log
from hornbook.small_files import read_object
from hornbook.sweeping.space import Dimension, space, train_settings
from hornbook.sweeping.study import (
    OTHER_UNIT,
    STOPPED,
    TRIALS,
    UNIT,
    alone,
    kept_study,
    name_of,
    next_trial,
    open_study,
    optuna,
)
from hornbook.sweeping.telling import found_by
from hornbook.training.callbacks import Callback, Moment
from hornbook.training.interrupt import Interrupted, interrupted_by_termination
from hornbook.training.origin import short_name
from hornbook.training.pretrain import train_alone

if TYPE_CHECKING:
    from optuna import Study, Trial

UNITS = {
    "validation_bits_per_byte": "bits per byte",
    "validation_loss": "nats a token",
    "validation_masked_loss": "nats a hidden token",
}
"""What an evaluation is judged by, the first of these that it has -> its unit."""


class Pruned(Exception):
    """Raised within a run: it is worse than the others were by then."""


def folder_of(settings: Sweep) -> Path:
    """Where its trials and page lie."""
    return Path(settings.out or f"runs/sweep-{short_name(settings.model)}-{data_name(settings.data)}")


def prepare(settings: Sweep) -> tuple[list[Dimension], Path, Study]:
    """What varies, where it lies, and the study there; UserError for settings that cannot be swept over."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a sweep does not run under torchrun: --workers 2 has several processes try settings")
    dimensions, folder = space(settings), folder_of(settings)
    open_data(settings.data, settings.column)
    return dimensions, folder, open_study(settings, folder)


def work(settings: Sweep) -> dict[str, Any]:
    """Run trials until none is missing; returns what `telling.found_by` says of all. The first has the defaults.

    The page is written anew after each. A trial whose run raises UserError counts as failed; but what is refused of the
    first, which has the defaults, would be of most, and is raised. Raises Interrupted, KeyboardInterrupt (after SIGTERM
    too) and PassingError, from which the same call carries on, as after any death; WorkError where every trial failed;
    and UserError as `prepare` does.
    """
    dimensions, folder, study = prepare(settings)
    with kept_study(folder), interrupted_by_termination():
        while True:
            with next_trial(study, folder, settings.trials, settings.seed) as taken:
                if taken is None:
                    break
                attempt(settings, dimensions, study, folder, *taken)
            write_sweep(folder, found_by(settings, dimensions, study, folder))
        found = found_by(settings, dimensions, study, folder)
        write_sweep(folder, found)
    reasons = [trial["why"] for trial in found["trials"] if trial["state"] == "failed"]
    if reasons and len(reasons) == len(found["trials"]):
        raise WorkError(f"all {len(reasons)} trials failed; the first: {reasons[0]}")
    return found


def attempt(settings: Sweep, dimensions: list[Dimension], study: Study, folder: Path, place: int, trial: Trial) -> None:
    """One trial from its settings to its value; Interrupted and KeyboardInterrupt leave it to be carried on."""
    states = optuna().trial.TrialState
    try:
        with kept_study(folder):
            values = {} if place == 0 else {one.name: one.draw(trial) for one in dimensions}
            words = ", ".join(f"{name} {spelled(value)}" for name, value in values.items()) or "the defaults"
            say(f"[trial {place}, {settings.trials} in all] {words}")
            out = folder / TRIALS / name_of(place)
            value, unit = run_value(settings, values, out, [follow(study, trial, folder, place)])
            require_unit(study, trial, folder, place, unit)
            study.tell(trial, value)
    except Pruned:
        say(f"trial {place} is pruned: worse than the others at that point")
        study.tell(trial, state=states.PRUNED)
    except (Interrupted, KeyboardInterrupt, PassingError):
        # what would meet all others too: this one is carried on; on a full disk the study may not take even this
        with contextlib.suppress(Exception):
            trial.set_user_attr(STOPPED, True)
        raise
    except UserError as error:
        if place == 0 and error.code == UserError.code:  # not what came of the work
            trial.set_user_attr(STOPPED, True)
            raise
        say(f"trial {place} failed: {error}")
        trial.set_user_attr("why", str(error))
        study.tell(trial, state=states.FAIL)


def run_value(settings: Sweep, values: Mapping[str, Any], out: Path, callbacks: list[Callback]) -> tuple[float, str]:
    """Train; returns what to keep low, and its unit: bits per byte of the validation split, or nats where there are
    none."""
    run = train_settings(settings, values, str(out))
    if (known := out / "train.json").exists():  # begun with another share of the cores, perhaps
        run = dataclasses.replace(run, threads=read_object(known).get("threads"))
    summary = train_alone(run, callbacks)
    scores = summary.get("validation", {})
    value, unit = scores.get("bits_per_byte"), UNITS["validation_bits_per_byte"]
    if value is None and scores.get("nats") is not None:
        value, unit = scores["nats"] / scores["targets"], UNITS["validation_loss"]
    if value is None and summary.get("pseudo_perplexity"):
        value, unit = math.log(summary["pseudo_perplexity"]), UNITS["validation_masked_loss"]
    if value is None or not math.isfinite(value):
        raise WorkError("its validation score is no number")
    return float(value), unit


def require_unit(study: Study, trial: Trial, folder: Path, place: int, unit: str) -> None:
    """WorkError where a trial is scored in another unit than the defaults, or before these, the first scored one."""
    with alone(folder):
        known = study.user_attrs.get(UNIT)
        if known is None or place == 0:
            study.set_user_attr(UNIT, unit)
        elif known != unit:
            raise WorkError(OTHER_UNIT.format(unit, known))
    trial.set_user_attr(UNIT, unit)


def follow(study: Study, trial: Trial, folder: Path, place: int) -> Callback:
    """A callback that reports each evaluation, and those from before the run was carried on; raises Pruned."""
    seen: list[float] = []
    out = folder / TRIALS / name_of(place)

    def report(value: float) -> None:
        seen.append(value)
        trial.report(value, len(seen))

    def at(moment: Moment) -> None:
        if moment.event != "evaluation" or (value := judged(moment.values)) is None:
            return
        with kept_study(folder):
            if not seen:
                require_unit(study, trial, folder, place, UNITS[measure(moment.values) or ""])
                lines = [line for line in read_log(out) if line.get("step", 0) < moment.step]
                for earlier in filter(None, map(judged, lines)):
                    report(earlier)
            report(value)
            if place > 0 and trial.should_prune():
                raise Pruned

    return at


def measure(values: Mapping[str, Any]) -> str | None:
    """What an evaluation is judged by."""
    return next((name for name in UNITS if values.get(name) is not None), None)


def judged(values: Mapping[str, Any]) -> float | None:
    """What an evaluation found."""
    return None if (name := measure(values)) is None else values[name]
