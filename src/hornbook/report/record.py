"""Run folders as a report reads them: finished, on their way or stopped, with whatever their files hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hornbook.errors import UserError, guess
from hornbook.evaluation.references import Reference, references
from hornbook.log import METRICS, read_log
from hornbook.report import wording
from hornbook.report.rung import Rung, number
from hornbook.small_files import read_object

Log = list[dict[str, Any]]

FALLING = ("validation_bits_per_byte", "validation_masked_loss", "validation_loss")
"""Figures that are the better, the lower they are; the scores of tasks are the better, the higher."""
OF_A_RUN = ("step", "seconds", "tokens")
ENGINE = ("engine", "machine", "hornbook", "torch", "python")
"""Keys of a summary that say what a run was computed with and on."""


@dataclass(frozen=True)
class Record(Rung):
    """A run: `summary` is empty until it is finished; each line of `log` has `seconds` and `tokens`, where known."""

    settings: dict[str, Any]
    """Its train.json."""
    folder: Path
    changed: float
    """When its log was last written to, in seconds since 1970."""

    @property
    def finished(self) -> bool:
        return bool(self.summary)

    @property
    def is_counted(self) -> bool:
        return super().is_counted if self.finished else False

    @property
    def is_encoder(self) -> bool:
        return super().is_encoder if self.finished else any("validation_masked_loss" in line for line in self.log)

    @cached_property
    def curves(self) -> dict[tuple[str, str], list[tuple[float, float]]]:
        """What `curve` found so far: a long log is gone through once for each figure."""
        return {}

    def curve(self, key: str, by: str = "seconds") -> list[tuple[float, float]]:
        if (key, by) not in self.curves:
            self.curves[key, by] = super().curve(key, by)
        return self.curves[key, by]

    @property
    def engine(self) -> dict[str, Any]:
        """What it was computed with and on, as far as its summary says it."""
        told = {key: self.summary[key] for key in ENGINE if self.summary.get(key)}
        found = told.pop("engine", {})
        return told | (found if isinstance(found, dict) else {"engine": found})

    @property
    def is_taught(self) -> bool:
        """Whether it was finetuned: it learnt a task, not a text."""
        return "task_name" in self.settings or "scores" in self.summary

    @cached_property
    def evaluated(self) -> str:
        """The figure of its evaluations: a task's first, by which its checkpoint is chosen; else bits per byte where
        there are any, else a loss."""
        if self.task_figures:
            return self.task_figures[0]
        found = next((name for name in FALLING if any(name in line for line in self.log)), None)
        return found or FALLING[-1]

    @cached_property
    def evaluated_name(self) -> str:
        """In words."""
        if self.evaluated in FALLING:
            return {"validation_bits_per_byte": "bits per byte"}.get(self.evaluated, f"nats a {self.target}")
        return self.evaluated.removeprefix("validation_").replace("_", " ")

    @cached_property
    def task_figures(self) -> list[str]:
        """The figures of a finetuned run's evaluations, in the order of the log: a task names its own score first."""
        lines = self.log if self.is_taught else []
        names = dict.fromkeys(name for line in lines for name in line if number(line[name]) is not None)
        return [name for name in names if name.startswith("validation_")]

    @cached_property
    def target(self) -> str:
        """What a loss is a mean over."""
        signs = {"validation_log_loss": "example", "validation_margin": "pair"}
        return next((word for sign, word in signs.items() if sign in self.task_figures), "token")

    @cached_property
    def scored(self) -> list[str]:
        """Its figures of tasks, such as hellaswag_accuracy, in the order of the log."""
        lines = (line for line in self.log if self.evaluated in line)
        names = dict.fromkeys(name for line in lines for name in line if number(line[name]) is not None)
        return [name for name in names if name not in OF_A_RUN and not name.startswith("validation")]

    @cached_property
    def levels(self) -> dict[str, list[Reference]]:
        """Figure -> what well-known models reach, as far as it compares with this run's."""
        config = self.folder / "config.json"
        vocab = read_object(config).get("vocab_size") if config.exists() else None
        names = [*self.scored, "validation_loss", "validation_bits_per_byte"]
        return {name: references(name, self.settings.get("data"), vocab) for name in names}

    @cached_property
    def best(self) -> dict[str, Any] | None:
        """The log line of the best evaluation; of equal scores, that of the lowest loss."""
        found = [line for line in self.log if number(line.get(self.evaluated)) is not None]
        sign = 1 if self.evaluated in FALLING else -1

        def rank(line: dict[str, Any]) -> tuple[float, float]:
            loss = line.get("validation_log_loss", line.get("validation_loss"))
            return sign * line[self.evaluated], number(loss) or 0.0

        return min(found, key=rank, default=None)


def open_records(paths: Iterable[str | Path]) -> list[Record]:
    """The runs in these folders, each named by as much of its path as tells it from the others."""
    folders = list(dict.fromkeys(folder for path in paths for folder in run_folders(Path(path))))
    return [read_record(folder, name) for folder, name in zip(folders, short_names(folders), strict=True)]


def run_folders(folder: Path) -> list[Path]:
    """The folder itself, or the runs of a ladder in their order, or any runs in it. UserError where there are none."""
    if not folder.is_dir():
        near = guess(folder.name, [path.name for path in folder.parent.glob("*/")])
        raise UserError(f"{folder} is no folder: give a run, or a folder of runs, such as runs/x.{near}")
    if is_run(folder):
        return [folder]
    rungs = read_object(folder / "ladder.json").get("rungs") if (folder / "ladder.json").exists() else None
    names = [name for name in rungs if isinstance(name, str)] if isinstance(rungs, list) else []
    inside = [folder / name for name in names] or sorted(folder.iterdir())
    found = [path for path in inside if path.is_dir() and is_run(path)]
    if not found:
        raise UserError(f"{folder} is no run, and holds none: there is no {METRICS}")
    return found


def is_run(folder: Path) -> bool:
    """A model folder is none; a run that has just begun has no metrics yet."""
    return any((folder / name).is_file() for name in (METRICS, "train.json"))


def short_names(folders: list[Path]) -> list[str]:
    """The last part of each path, with as many before it as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            break
    return [wording.visible(name) for name in names] if parts else []


def read_record(folder: Path, name: str) -> Record:
    """What the files of a run hold, settings and summary as far as they are there."""
    summary, settings = (
        read_object(folder / file) if (folder / file).exists() else {} for file in ("summary.json", "train.json")
    )
    files = [path for path in (folder / METRICS, folder / "train.json") if path.is_file()]
    log = filled(read_log(folder), summary)
    return Record(name, summary, log, settings, folder, max(path.stat().st_mtime for path in files or [folder]))


def filled(log: Log, summary: dict[str, Any]) -> Log:
    """The lines with the seconds and tokens that hold for them: their own, else those of the step before."""
    steps, tokens = number(summary.get("steps")), number(summary.get("tokens"))
    per_step = tokens / steps if steps and tokens and not any("tokens" in line for line in log) else None
    known: dict[str, float] = {}
    result = []
    for line in log:
        if per_step is not None and (step := number(line.get("step"))) is not None:
            line = line | {"tokens": step * per_step}
        known |= {key: value for key in ("seconds", "tokens") if (value := number(line.get(key))) is not None}
        result.append(line | known)
    return result
