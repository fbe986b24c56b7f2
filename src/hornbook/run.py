"""A run folder in and out.

    runs/x/train.json               the settings, resolved
    runs/x/metrics.jsonl            one line a measurement
    runs/x/checkpoints/000500/      a whole Hugging Face model folder, state/ to resume from, and manifest.json; of a
                                    model in parts: these in state/, and only of the best and the last one the folder
    runs/x/last, runs/x/best        links to checkpoints
    runs/x/config.json ...          links into `best`, so that the run itself is a model folder

Whenever its process dies, by whatever cause, the next one finds a whole checkpoint and the log up to it. A checkpoint
is written aside, synced and renamed in one step, after the log that leads to it; then the links move, each in one step;
then what nothing needs any more is deleted. Kept are the last two, for one may be damaged, and the best as of each.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hornbook.atomic import discard, point, remove_leftovers, sync, sync_one, write_json
from hornbook.checkpoint import read_weights, save_model
from hornbook.errors import PassingError, UserError, WorkError
from hornbook.layers.model import LanguageModel
from hornbook.lock import LOCK, Lock
from hornbook.log import Log
from hornbook.log import read_log as read_log
from hornbook.manifest import MANIFEST, damage, read_manifest, write_manifest
from hornbook.parallel.parts import STATE
from hornbook.progress import say
from hornbook.small_files import read_object
from hornbook.text.tokenizers import Tokenizer

KEPT = 3
"""Checkpoints at most that lie in a run folder between two saves."""
SUMMARY = "summary.json"
SNAPSHOTS = "snapshots"
"""The folder in a run's of models as they were at many steps, by step."""
FOUND_RATES = ("find-lr.json", "find-lr.html")
"""What --find-lr leaves in the folder of a run that is yet to begin."""
CHECKPOINTS = "checkpoints"
"""The folder of a run that holds them."""
NAME = re.compile(r"(?P<step>\d+)(-(?P<again>\d+))?", re.ASCII)
OWN = re.compile(r"\d+(-\d+)?|\.\d+(-\d+)?\..+", re.ASCII)
"""What a run puts there: checkpoints, those that are being written or deleted, and damaged ones. All else stays."""


class Run:
    """The folder that one training run owns: from `begin` to `close`, as which `with Run(folder) as run:` also counts.

    Its methods raise UserError where the disk does not do what it should.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.checkpoints = self.folder / CHECKPOINTS
        self.metrics = Log(self.folder)
        self.lock = Lock(self.folder)
        self.lost_best = False
        """Whether `find` has put another checkpoint in the place of the best one, which was damaged."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        self.metrics.close()
        self.lock.free()

    def settings(self) -> dict[str, Any]:
        """The settings of the run that is here; empty where there is none, or none that came to a checkpoint."""
        return read_object(self.folder / "train.json") if self.saved() else {}

    @property
    def finished(self) -> bool:
        """Whether it has come to its end."""
        return (self.folder / SUMMARY).exists()

    def saved(self) -> list[Path]:
        """The checkpoints that are there, the oldest first."""
        folders = self.checkpoints.iterdir() if self.checkpoints.is_dir() else ()
        return sorted((folder for folder in folders if NAME.fullmatch(folder.name)), key=age)

    def claim(self) -> None:
        """Take the lock of a run that is there already, so that one in use is told of before any work."""
        if not (self.folder / "train.json").exists():
            return
        try:
            self.lock.take()
        except OSError as error:
            raise PassingError(f"cannot write to {self.folder}: {error.strerror or error}") from error

    def begin(self, settings: dict[str, Any], changeable: tuple[str, ...] = ()) -> None:
        """Claim the folder for `settings`, or find a run of the same settings there to carry on.

        Raises UserError where it holds a run of other settings, or something that is no run, and where another process
        is at work in it.
        """
        if self.folder.is_file() or self.foreign():
            raise UserError(f"{self.folder} exists and is not a run: choose another --out")
        try:
            made = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock.take()
            if not self.agrees(settings, changeable):
                write_json(self.folder / "train.json", settings)
                self.checkpoints.mkdir(exist_ok=True)
                if (self.folder / SNAPSHOTS).exists():  # of a run that came to no checkpoint
                    discard(self.folder / SNAPSHOTS)
            for leftover in self.checkpoints.glob(".*"):
                if OWN.fullmatch(leftover.name):
                    discard(leftover)
            remove_leftovers(self.folder)
            for folder in [self.folder, *([self.folder.parent] if made else [])]:
                sync_one(folder)
        except OSError as error:
            self.close()
            raise PassingError(f"cannot write to {self.folder}: {error.strerror or error}") from error
        except UserError:
            self.close()
            raise

    def foreign(self) -> bool:
        """Whether the folder holds something, and no run."""
        if not self.folder.is_dir() or (self.folder / "train.json").exists():
            return False
        own = (LOCK, *FOUND_RATES)
        return any(path.name not in own and path.suffix != ".part" for path in self.folder.iterdir())

    def agrees(self, settings: dict[str, Any], changeable: tuple[str, ...]) -> bool:
        """Whether a run is here, whose settings must be these."""
        old = self.settings()
        differ = [k for k in settings if k not in changeable and old.get(k) != json.loads(json.dumps(settings[k]))]
        if old and differ:
            what = ", ".join(f"{k} was {old.get(k)!r} and is now {settings[k]!r}" for k in differ[:3])
            raise UserError(f"{self.folder} holds a run of other settings ({what}): choose another --out")
        return bool(old)

    def check_space(self, size: int) -> None:
        """PassingError where the disk has no room for the checkpoints that are kept and the one being written, of
        `size` bytes each."""
        there = sum(path.stat().st_size for folder in self.saved() for path in folder.rglob("*") if path.is_file())
        place = next(path for path in (self.folder, *self.folder.absolute().parents) if path.is_dir())
        needed, free = (KEPT + 1) * size - there, shutil.disk_usage(place).free
        if needed > free:
            raise PassingError(
                f"the checkpoints of {self.folder} need {needed / 1e6:,.1f} MB ({KEPT + 1} of {size / 1e6:,.1f} MB"
                f"{f', of which {there / 1e6:,.1f} MB are there' if there else ''}), and its disk has "
                f"{free / 1e6:,.1f} MB free: free some, choose --out on another disk, or a smaller model"
            )

    def save(
        self,
        step: int,
        model: LanguageModel,
        tokenizer: Tokenizer,
        tensors: dict[str, Tensor],
        facts: dict[str, Any],
        best: bool,
    ) -> None:
        """Write the checkpoint of `step` (with `tensors` and `facts` to resume from) and point `last`, `best` to it."""
        aside = self.aside(step)
        with self.written(aside, step):
            save_model(aside, model, tokenizer)
            (aside / STATE).mkdir()
            save_file({name: t.contiguous() for name, t in tensors.items()}, aside / STATE / "state.safetensors")
            write_json(aside / STATE / "state.json", facts)
            self.publish(aside, step, best, self.metrics.sync())

    def aside(self, step: int) -> Path:
        """The folder in which the next checkpoint of `step` is to be written, whose name follows from those there; what
        an earlier attempt left of it is deleted."""
        names = {folder.name for folder in self.saved()}
        again = (f"{step:06d}-{count}" for count in range(2, len(names) + 3))
        name = next(name for name in (f"{step:06d}", *again) if name not in names)
        aside = self.checkpoints / f".{name}.part"
        shutil.rmtree(aside, ignore_errors=True)
        return aside

    @contextlib.contextmanager
    def written(self, aside: Path, step: int) -> Iterator[None]:
        """Within, a checkpoint is written to `aside`; after an error that is deleted. PassingError for what a disk
        refuses."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise PassingError(
                f"could not write the checkpoint of step {step} to {self.folder} ({error}): once that is mended, the "
                f"same command carries on from {'the last one' if self.saved() else 'the start'}"
            ) from error

    def publish(
        self, aside: Path, step: int, best: bool, log: int, known: Mapping[str, dict[str, Any]] | None = None
    ) -> None:
        """Make a folder that holds all of a checkpoint the last one, with the first `log` bytes of the log; of the
        files in `known` size and checksum are. OSErrors pass through."""
        target = aside.with_name(aside.name.removeprefix(".").removesuffix(".part"))
        best_name = target.name if best or not self.has_best() else (self.folder / "best").resolve().name
        write_manifest(aside, known, step=step, best=best_name, log=log)
        sync(aside)
        os.rename(aside, target)
        sync_one(self.checkpoints)
        self.lead(target, self.checkpoints / best_name)
        self.prune(target)

    def has_best(self) -> bool:
        """Whether there is a best checkpoint."""
        return (self.folder / "best").exists()

    @property
    def best_step(self) -> int:
        """Of the best checkpoint, which must be there."""
        return age((self.folder / "best").resolve())[0]

    def lead(self, last: Path, best: Path) -> None:
        """Have the links lead to these checkpoints, and those of the run's root to the files of `best`."""
        wanted = {self.folder / "last": last, self.folder / "best": best}
        for path in best.iterdir():
            link = self.folder / path.name
            if path.is_file() and path.name != MANIFEST and not os.path.lexists(link):
                wanted[link] = self.folder / "best" / path.name
        for link, target in wanted.items():
            if not link.is_symlink() or link.readlink() != target.relative_to(self.folder):
                point(link, target)
        sync_one(self.folder)

    def prune(self, newest: Path) -> None:
        """Delete all checkpoints but `newest`, the one before it, the best as of each, and whatever a link leads to.

        Those of later steps are of a course that was left: they go too.
        """
        before = [folder for folder in self.saved() if age(folder)[0] < age(newest)[0]][-1:]
        kept = {read_manifest(folder).get("best") for folder in (newest, *before)}
        kept |= {folder.name for folder in (newest, *before)}
        kept |= {(self.folder / link).resolve().name for link in ("last", "best")}
        try:
            for folder in self.checkpoints.iterdir():
                if folder.name not in kept and OWN.fullmatch(folder.name):
                    discard(folder)
        except OSError as error:
            say(
                f"could not delete an old checkpoint in {self.checkpoints} ({error.strerror}): it takes its space still"
            )

    def find(self) -> str | None:
        """The name of the newest whole checkpoint; None where there is none.

        The links, and the log, are brought to where they were then. A damaged checkpoint is set aside, which a line
        says. UserError where all are damaged.
        """
        folder, damaged = self.newest_whole()
        if folder is None:
            self.cut_log(lambda line: False)
            return None
        manifest = read_manifest(folder)
        best = self.checkpoints / str(manifest["best"])
        if best != folder and (why := damage(best)):
            say(f"the best checkpoint, {best.name}, is damaged ({why}): {folder.name} takes its place")
            best, self.lost_best = folder, True
        try:
            self.lead(folder, best)
            for path in damaged:
                os.replace(path, path.with_name(f".{path.name}.damaged"))
            sync_one(self.checkpoints)
        except OSError as error:
            raise PassingError(f"cannot write to {self.folder}: {error.strerror or error}") from error
        self.metrics.cut(lambda line: line.get("step", 0) <= manifest["step"], manifest["log"])
        if self.metrics.size() < manifest["log"]:
            say(f"{self.metrics.path} lacks lines from before step {manifest['step']}, which are lost")
        return folder.name

    def newest_whole(self) -> tuple[Path | None, list[Path]]:
        """The newest checkpoint that is whole, or None where there is none at all, and the damaged ones after it."""
        wrong: dict[Path, str] = {}
        for folder in reversed(self.saved()):
            if why := damage(folder):
                wrong[folder] = why
                continue
            if wrong:
                say(f"damaged: {listed(wrong)}; carrying on from checkpoint {folder.name}, which is whole")
            return folder, list(wrong)
        if wrong:
            raise WorkError(
                f"no checkpoint in {self.checkpoints} is whole ({listed(wrong)}): bring back a copy of one, choose "
                f"another --out, or remove {self.folder} to start afresh"
            )
        return None, []

    def restore_best(self, model: LanguageModel) -> None:
        """Fill `model` from the best checkpoint."""
        read_weights(self.folder / "best", model)

    def log(self, **values: Any) -> None:
        """Append one line to metrics.jsonl."""
        self.metrics.write(values)

    def cut_log(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Cut metrics.jsonl before the first line that `keep` refuses."""
        self.metrics.cut(keep)


class FollowedRun(Run):
    """A run that another process writes: here it is only read."""

    def claim(self) -> None:
        """Nothing: the other process holds the folder."""

    def begin(self, settings: dict[str, Any], changeable: tuple[str, ...] = ()) -> None:
        """Nothing."""

    def check_space(self, size: int) -> None:
        """Nothing."""

    def save(self, *args: Any) -> None:
        """Nothing."""

    def log(self, **values: Any) -> None:
        """Nothing."""


def age(folder: Path) -> tuple[int, int]:
    """What a checkpoint's name says: its step, and how often that was saved before."""
    found = NAME.fullmatch(folder.name)
    assert found
    return int(found["step"]), int(found["again"] or 1)


def listed(wrong: dict[Path, str]) -> str:
    """Damaged checkpoints, with what is wrong with each."""
    return ", ".join(f"checkpoint {folder.name}: {why}" for folder, why in wrong.items())


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file. UserError where it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot carry on: {path} is damaged ({error})") from error
