"""A run from its settings to its summary: afresh, on from where it stopped, or told of where it has ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from hornbook.atomic import write_json
from hornbook.config import Learning
from hornbook.layers.model import LanguageModel
from hornbook.parallel.processes import Processes
from hornbook.progress import Bar, say
from hornbook.run import SUMMARY, Run
from hornbook.small_files import read_object
from hornbook.training.callbacks import Callback, Moment, tell
from hornbook.training.like import Replay
from hornbook.training.saving import PartSaver
from hornbook.training.session import Session
from hornbook.training.snapshots import snapshots
from hornbook.training.space import checkpoint_bytes
from hornbook.training.tracking import tracker
from hornbook.training.work import Work

CHANGEABLE: tuple[str, ...] = (
    "out",
    "like",
    "track",
    "rows",
    "total_steps",
    "find_lr",
    "parallel",
    "tensor",
    "timeout",
    "snapshots",
)
CHANGEABLE += ("process_count",)
"""What may differ when a run carries on."""
Count = Callable[[Bar, Sequence[Callback]], dict[str, Any]]
"""Fits a counted model, in the place of a session; returns what it found."""


def conduct(
    settings: Learning,
    model: LanguageModel,
    run: Run,
    task: Work | Count,
    facts: dict[str, Any],
    about: dict[str, Any],
    callbacks: Sequence[Callback] = (),
    course: Replay | None = None,
    processes: Processes | None = None,
) -> dict[str, Any]:
    """Carry out a run; returns its summary. `facts` must be the same when it carries on, `about` joins the summary.

    `settings` leave nothing open. Raises UserError and Interrupted.
    """
    processes = processes or Processes()
    tracked = (tracker(name, run.folder, dataclasses.asdict(settings)) for name in settings.track)
    kept = [snapshots(settings.snapshots)] if settings.snapshots else []
    told = [*callbacks, *tracked, *kept] if processes.main else [*callbacks]
    session = None if callable(task) else Session(settings, model, task, run, told, course, processes)
    if session is not None:
        parts = isinstance(session.saver, PartSaver)
        if not run.finished:
            run.check_space(checkpoint_bytes(model, session.engine.optimizers.all, parts))
        facts |= {"total_steps": session.steps} if session.steps else {}
    with processes.main_first():
        run.begin(dataclasses.asdict(settings) | facts, changeable=CHANGEABLE)
    if run.finished:
        say(f"{run.folder} is finished")
        return read_object(run.folder / SUMMARY)
    with Bar(run.folder.name) as bar:
        found = session.learn(bar) if session is not None else task(bar, told)  # type: ignore[operator]
    about |= {"family": model.config.family, "parameters": model.parameter_count()}
    if model.adapter is not None:
        about["learnt"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    summary = found | about
    if processes.main:
        write_json(run.folder / SUMMARY, summary)
    tell(told, Moment("end", summary.get("steps", 0), summary, model, run.folder))
    return summary
