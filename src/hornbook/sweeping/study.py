"""The study of a sweep: Optuna's, in SQLite in the sweep's folder, shared by all who work on it.

    runs/sweep-x/sweep.json        the settings
    runs/sweep-x/study.db          the trials
    runs/sweep-x/trials/007/       the run of a trial
    runs/sweep-x/at-work/007/      a lock, held by the process that works on that trial

A trial whose process died is told failed, and enqueued again as another one of Optuna's with the same folder. So a
trial is known here by its place, which is its folder's name, and Optuna's number of its last life is of no interest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hornbook.atomic import write_json
from hornbook.config import Sweep
from hornbook.errors import PassingError, UserError, missing_extra
from hornbook.ladder import claim
from hornbook.lock import LOCK, Lock
from hornbook.progress import say

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

SETTINGS, STUDY, TRIALS, WORK = "sweep.json", "study.db", "trials", "at-work"
FREE = ("out", "trials", "json", "workers", "engine", "threads")
"""Settings in which one command in a folder may differ from the one before."""
STOPPED = "stopped"
"""An attribute of a trial's life: somebody asked it to end."""
UNIT = "unit"
"""An attribute of the study and of each trial: what its values are."""
OTHER_UNIT = "it is scored in {}, and others in {}, which cannot be compared"
DEATHS = 3
"""Lives of a trial that may end unasked, as when memory runs out, before it counts as failed."""
PATIENCE = 60.0
"""Seconds to wait for another worker that is choosing its trial."""
UNPRUNED = 5
"""Trials that must have ended before one is pruned."""
SETTLED = 2
"""Evaluations of a trial before it may be pruned."""


def optuna() -> Any:
    """The package, quiet. UserError where it is missing."""
    try:
        import optuna
    except ImportError:
        raise missing_extra("optuna", "sweep", "a sweep") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextlib.contextmanager
def kept_study(folder: Path) -> Iterator[None]:
    """Within, what the database of a sweep cannot do, on a full disk say, is a PassingError."""
    package, engine = optuna(), import_module("sqlalchemy")
    try:
        yield
    except (package.exceptions.StorageInternalError, engine.exc.SQLAlchemyError, sqlite3.Error) as error:
        cause = error.__cause__ or error
        first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise PassingError(f"cannot work with {folder / STUDY}: {first}") from error


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[Lock]:
    """Within, no other worker of this sweep chooses or gives back a trial."""
    lock, until = Lock(folder), time.monotonic() + PATIENCE
    while True:
        try:
            lock.take()
            break
        except UserError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    try:
        yield lock
    finally:
        lock.free()


def open_study(settings: Sweep, folder: Path) -> Study:
    """The study in `folder`, begun with the trial of the defaults, or found there with the same settings.

    UserError where the folder holds something else, a sweep of other settings or of another Optuna's making, or where
    several workers could not keep out of each other's way; PassingError as `kept_study`.
    """
    there = {path.name for path in folder.iterdir()} - {LOCK} if folder.is_dir() else set()
    if folder.is_file() or (there and SETTINGS not in there and not all(name.endswith(".part") for name in there)):
        raise UserError(f"{folder} exists and is no sweep: choose another --out")
    package = optuna()
    folder.mkdir(parents=True, exist_ok=True)
    with kept_study(folder), alone(folder) as lock:
        if not lock.excludes and (settings.workers > 1 or settings.engine == "ray"):
            raise UserError(f"{folder} cannot be locked, so that only one worker can be there: leave out --workers")
        if not (folder / SETTINGS).exists():
            write_json(folder / SETTINGS, json.loads(json.dumps(dataclasses.asdict(settings))))
        claim(folder, settings, SETTINGS, "a sweep", "is no sweep", FREE)
        try:
            storage = package.storages.RDBStorage(f"sqlite:///{STUDY}", engine_kwargs={"creator": connector(folder)})
        except RuntimeError as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(f"{folder / STUDY} is not for Optuna {package.__version__}: {first}") from error
        study = package.create_study(
            storage=storage, study_name="sweep", load_if_exists=True, pruner=pruner(settings.prune)
        )
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial({})
    return study


def connector(folder: Path) -> Callable[[], sqlite3.Connection]:
    """What opens the database: a path of any characters, of which a URL would take some for its own."""
    return partial(sqlite3.connect, folder.absolute() / STUDY, timeout=PATIENCE, check_same_thread=False)


def pruner(name: str) -> Any:
    """What ends a trial early; its steps are evaluations, of which runs of any length have equally many."""
    pruners = optuna().pruners
    if name == "median":
        return pruners.MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=SETTLED)
    if name == "halving":
        return pruners.SuccessiveHalvingPruner(min_resource=SETTLED, reduction_factor=3)
    return pruners.NopPruner()


def lives(study: Study) -> dict[int, list[FrozenTrial]]:
    """Place -> all that were begun there: the first, and a further one after each death."""
    found: dict[int, list[FrozenTrial]] = {}
    repeated = 0
    for trial in study.get_trials(deepcopy=False):  # in the order of their numbers
        again = trial.user_attrs.get("again")
        repeated += again is not None
        found.setdefault(trial.number - repeated if again is None else again, []).append(trial)
    return found


def places(study: Study) -> dict[int, FrozenTrial]:
    """Place -> the trial that stands for it, the last of its lives."""
    return {place: each[-1] for place, each in lives(study).items()}


def name_of(place: int) -> str:
    return f"{place:03d}"


@contextlib.contextmanager
def next_trial(study: Study, folder: Path, wanted: int, seed: int) -> Iterator[tuple[int, Trial] | None]:
    """The trial to work on, and its place, held within against others; None where all that are wanted are taken.

    What it draws depends on the seed, its place, and the trials that have ended, or that others are working on.
    """
    with alone(folder):
        if (taken := taken_trial(study, folder, wanted)) is not None:
            lock = Lock(work_folder(folder, taken[0]))
            lock.take()
    if taken is None:
        yield None
        return
    study.sampler = sampler((seed * 1_000_003 + taken[0]) % 2**32)
    try:
        yield taken
    finally:
        lock.free()


def taken_trial(study: Study, folder: Path, wanted: int) -> tuple[int, Trial] | None:
    """A trial that waits, else a new one, unless there are as many as are wanted."""
    carry_on_the_dead(study, folder)
    known = places(study)
    waits = any(trial.state == optuna().trial.TrialState.WAITING for trial in known.values())
    if len(known) >= wanted and not waits:
        return None
    trial = study.ask()
    return next(place for place, other in places(study).items() if other.number == trial.number), trial


def sampler(seed: int) -> Any:
    """Tree-structured Parzen estimators (Bergstra et al. 2011); what others work on counts as tried."""
    package = optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", package.exceptions.ExperimentalWarning)
        return package.samplers.TPESampler(seed=seed, constant_liar=True)


def work_folder(folder: Path, place: int) -> Path:
    """The folder whose lock says that somebody works on a trial; made where it is missing."""
    (path := folder / WORK / name_of(place)).mkdir(parents=True, exist_ok=True)
    return path


def carry_on_the_dead(study: Study, folder: Path) -> None:
    """Enqueue again, in its folder, each trial that is on, and that no process works on; after so many deaths it has
    failed."""
    package = optuna().trial
    states = package.TrialState
    for place, each in lives(study).items():
        trial, deaths = each[-1], sum(not life.user_attrs.get(STOPPED) for life in each)
        if trial.state != states.RUNNING:
            continue
        if not (idle(work_folder(folder, place)) and idle(folder / TRIALS / name_of(place))):
            continue
        if deaths < DEATHS:
            say(f"trial {place} was interrupted: it is carried on")
            study.enqueue_trial(trial.params, user_attrs={"again": place})
        else:
            why = f"its process died {deaths} times, as when memory runs out"
            say(f"trial {place} failed: {why}")
            known = {"params": trial.params, "distributions": trial.distributions}
            told = {"again": place, "why": why}
            study.add_trial(package.create_trial(state=states.FAIL, user_attrs=told, **known))
        study.tell(trial.number, state=states.FAIL)


def idle(folder: Path) -> bool:
    """Whether nobody holds the lock of a folder."""
    if not folder.is_dir():
        return True
    lock = Lock(folder)
    try:
        lock.take()
    except UserError:
        return False
    lock.free()
    return True
