"""Several processes at one run: how they begin, and what they must agree on."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from hornbook.config import Learning, Train
from hornbook.errors import UserError
from hornbook.layers.model import LanguageModel
from hornbook.parallel.processes import Processes, joined
from hornbook.run import FollowedRun, Run
from hornbook.training.batch_size import Lesson
from hornbook.training.choices import choose, tried

Settings = TypeVar("Settings", bound=Learning)


def several(settings: Learning) -> AbstractContextManager[Processes]:
    """The processes of the run that `settings` describe."""
    return joined(settings.device or "cpu", settings.parallel, settings.tensor, settings.timeout)


def run_of(settings: Learning, processes: Processes) -> Run:
    """Its folder, which one of them writes."""
    assert settings.out is not None
    return Run(settings.out) if processes.main else FollowedRun(settings.out)


def choose_together(
    settings: Settings,
    model: LanguageModel,
    tokens: int,
    run: Run,
    processes: Processes,
    lesson: Lesson | None = None,
) -> Settings:
    """`choose`, by the main process for all. UserError for what several processes cannot do, and as `tried`."""
    if processes.size > 1:
        require_possible(settings, model)
    if processes.main:
        asked, earlier = settings, run.settings()
        settings = choose(asked, model, tokens, earlier, lesson)
        if not run.finished:
            settings = tried(settings, asked, earlier)
    chosen: dict[str, Any] = processes.told(dataclasses.asdict(settings))
    settings = dataclasses.replace(settings, **{k: v for k, v in chosen.items() if not isinstance(v, list | dict)})
    assert settings.batch != "auto"
    processes.require_rows(settings.batch)
    return settings


def require_possible(settings: Learning, model: LanguageModel) -> None:
    """UserError for settings that need one process."""
    if settings.batch == "auto":
        raise UserError("--batch auto measures one process: say how many rows all of them read, as in --batch 64")
    if model.counted:
        raise UserError(f"{model.config.family} is counted by one process: start it without torchrun")
    if settings.find_lr:
        raise UserError("--find-lr is one process's work: start it without torchrun")
    if settings.tensor > 1 and settings.lora:
        raise UserError(
            "--tensor splits matrices, and --lora adapts whole ones: take --parallel shard, or leave one out"
        )
    if settings.tensor > 1 and isinstance(settings, Train) and settings.tasks:
        raise UserError("--tasks needs whole models: with --tensor, leave it out and evaluate the run")
    split = settings.parallel in ("shard", "hybrid") or settings.tensor > 1
    if split and settings.snapshots:
        raise UserError("--snapshots needs whole models: leave it out, or take --parallel data")
    if split and settings.optimizer == "adafactor":
        raise UserError("--optimizer adafactor needs whole matrices: take adamw or muon, or --parallel data")
