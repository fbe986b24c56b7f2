"""A run folder in and out.

    runs/x/train.json               the settings, resolved
    runs/x/metrics.jsonl            one line a measurement
    runs/x/checkpoints/000500/      a whole Hugging Face model folder, and state/ to resume from
    runs/x/last, runs/x/best        links to checkpoints
    runs/x/config.json ...          links into `best`, so that the run itself is a model folder

A checkpoint is written aside, synced and renamed in one step: it is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hornbook.atomic import sync, write_json, written_aside
from hornbook.checkpoint import read_weights, save_model
from hornbook.errors import UserError
from hornbook.layers.model import LanguageModel
from hornbook.small_files import read_object
from hornbook.text.tokenizers import Tokenizer


class Run:
    """The folder that one training run owns."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.checkpoints = self.folder / "checkpoints"
        self.metrics = self.folder / "metrics.jsonl"

    def settings(self) -> dict[str, Any]:
        """The settings of the run that is here; empty where there is none, or none that came to a checkpoint."""
        return read_object(self.folder / "train.json") if (self.folder / "last").exists() else {}

    def begin(self, settings: dict[str, Any], changeable: tuple[str, ...] = ()) -> None:
        """Claim the folder for `settings`, or find a run of the same settings there to carry on.

        Raises UserError where it holds a run of other settings, or something that is no run.
        """
        path = self.folder / "train.json"
        if old := self.settings():
            differ = [k for k in settings if k not in changeable and old.get(k) != json.loads(json.dumps(settings[k]))]
            if differ:
                what = ", ".join(f"{k} was {old.get(k)!r} and is now {settings[k]!r}" for k in differ[:3])
                raise UserError(f"{self.folder} holds a run of other settings ({what}): choose another --out")
            return
        if self.folder.is_file() or (self.folder.is_dir() and any(self.folder.iterdir()) and not path.exists()):
            raise UserError(f"{self.folder} exists and is not a run: choose another --out")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, settings)
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}") from error

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
        target = self.checkpoints / f"{step:06d}"
        aside = self.checkpoints / f".{step:06d}.part"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            save_model(aside, model, tokenizer)
            (aside / "state").mkdir()
            save_file({name: t.contiguous() for name, t in tensors.items()}, aside / "state" / "state.safetensors")
            write_json(aside / "state" / "state.json", facts)
            sync(aside)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise UserError(
                f"could not write a checkpoint to {self.folder} ({error}); the last one is whole"
            ) from error
        if target.exists():
            shutil.rmtree(target)
        os.rename(aside, target)
        self.point("last", target)
        if best or not (self.folder / "best").exists():
            self.point("best", target)
            for name in sorted(path.name for path in target.iterdir() if path.is_file()):
                if not (self.folder / name).is_symlink():
                    (self.folder / name).symlink_to(Path("best") / name)
        self.prune()

    def point(self, name: str, target: Path) -> None:
        """Make the link `name` point to `target`, in one step."""
        aside = self.folder / f".{name}.part"
        aside.unlink(missing_ok=True)
        aside.symlink_to(target.relative_to(self.folder))
        os.replace(aside, self.folder / name)

    def prune(self) -> None:
        """Delete all checkpoints but `last` and `best`, and leftovers of interrupted writing."""
        kept = {(self.folder / name).resolve() for name in ("last", "best")}
        for folder in self.checkpoints.iterdir():
            if folder.is_dir() and folder.resolve() not in kept:
                shutil.rmtree(folder)

    def restore(self, model: LanguageModel) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Fill `model` from the last checkpoint and return what else it holds; None where there is none."""
        last = self.folder / "last"
        if not last.exists():
            return None
        read_weights(last, model)
        path = last / "state" / "state.safetensors"
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError) as error:
            raise UserError(f"cannot carry on: {path} is damaged ({error})") from error
        return tensors, read_object(last / "state" / "state.json")

    def restore_best(self, model: LanguageModel) -> None:
        """Fill `model` from the best checkpoint."""
        read_weights(self.folder / "best", model)

    def log(self, **values: Any) -> None:
        """Append one line to metrics.jsonl."""
        try:
            with open(self.metrics, "a") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise UserError(f"cannot write to {self.metrics}: {error.strerror}") from error

    def cut_log(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the lines of metrics.jsonl that `keep` refuses: what was measured after the checkpoint resumed from."""
        lines = [line for line in read_log(self.folder) if keep(line)]
        with written_aside(self.metrics) as aside:
            aside.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a torn last line is left out."""
    path, lines = Path(folder) / "metrics.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
