"""The main job: climb every rung on one text, measure all on one scale, let each speak, and show it."""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from hornbook import machine
from hornbook.atomic import write_json
from hornbook.config import Ladder, Morph, Train
from hornbook.data.masking import mask_token
from hornbook.errors import UserError
from hornbook.models import family, find_size
from hornbook.progress import duration, say
from hornbook.report.page import Rung, write_report
from hornbook.report.wording import exactly
from hornbook.run import read_log
from hornbook.small_files import read_object
from hornbook.text.corpora import Corpus, open_corpus
from hornbook.text.tokenizer_store import obtain_tokenizer
from hornbook.text.tokenizers import Tokenizer
from hornbook.training.prepare import resolve_config
from hornbook.training.pretrain import resolve, train_alone


def folder_of(settings: Ladder) -> Path:
    """Where a ladder's runs and report lie."""
    return Path(settings.out or f"runs/ladder-{'stdin' if settings.data == '-' else Path(settings.data).stem}")


def climb(settings: Ladder) -> list[Rung]:
    """Train every rung for one budget (counted ones take the seconds that they take); returns what was measured.

    Writes report.html into the folder, anew after each rung. Raises Interrupted, and UserError for an unknown rung.
    """
    folder = folder_of(settings)
    for name in settings.rungs:
        find_size(name)  # a wrong name is told before any work
    corpus = open_corpus(settings.data, settings.column)
    tokenizer = obtain_tokenizer(settings.tokenizer, corpus, settings.vocab)
    check_rungs(settings, folder, tokenizer)
    told = facts(settings, corpus, tokenizer)
    claim(folder, settings, "ladder.json", "a ladder", "is not a ladder", ("rungs",))
    say(estimate(settings, folder))
    rungs = []
    for number, name in enumerate(settings.rungs, 1):
        say(f"[{number}/{len(settings.rungs)}] {name}")
        summary = train_alone(settings_of_rung(settings, name, folder))
        rungs.append(Rung(name, summary, read_log(folder / name)))
        write_report(folder / "report.html", told, rungs)
    return rungs


def claim(folder: Path, settings: Any, file: str, holds: str, foreign: str, free: Collection[str]) -> None:
    """Make `folder` the own one of such settings, which are written into `file`; `free` are those that may change.

    UserError where it `holds` runs of others, or something `foreign`.
    """
    path, wanted = folder / file, json.loads(json.dumps(dataclasses.asdict(settings)))
    if path.exists():
        old = read_object(path)
        if differ := [key for key in wanted if key not in free and old.get(key) != wanted[key]]:
            what = ", ".join(f"{key} was {old.get(key)!r} and is now {wanted[key]!r}" for key in differ)
            raise UserError(f"{folder} holds {holds} of other settings ({what}): choose another --out")
    elif folder.is_file() or (folder.exists() and any(path.suffix != ".part" for path in folder.iterdir())):
        raise UserError(f"{folder} exists and {foreign}: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, wanted)


def check_rungs(settings: Ladder, folder: Path, tokenizer: Tokenizer) -> None:
    """What would stop a rung is told before the first one starts."""
    for name in settings.rungs:
        config = resolve_config(resolve(settings_of_rung(settings, name, folder)), tokenizer)
        if not family(config.family).Model.causal:
            mask_token(tokenizer)


def spelled(settings: Ladder | Morph) -> str:
    """The command line that gives these settings."""
    words = ["hornbook", type(settings).__name__.lower()]
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value != field.default:
            words += [] if field.name == "data" else [f"--{field.name}"]
            parts = value if isinstance(value, tuple) else (value,)
            words += [exactly(part) if isinstance(part, float) else str(part) for part in parts]
    return shlex.join(words)


def settings_of_rung(settings: Ladder, name: str, folder: Path) -> Train:
    """What trains one rung: the ladder's text, tokeniser and budget, and the rung's own recipe."""
    counted = family(find_size(name).family).Model.counted
    return Train(
        name,
        data=settings.data,
        out=str(folder / name),
        column=settings.column,
        tokenizer=settings.tokenizer,
        vocab=settings.vocab,
        minutes=None if counted else settings.minutes,
        prompt=settings.prompt,
        seed=settings.seed,
        device=settings.device,
    )


def estimate(settings: Ladder, folder: Path) -> str:
    """How long it will take, before it starts: the budgets, and about 12 seconds a rung around them."""
    left = [name for name in settings.rungs if not (folder / name / "summary.json").exists()]
    learnt = [name for name in left if not family(find_size(name).family).Model.counted]
    seconds = 60 * settings.minutes * len(learnt) + 12 * len(left)
    here = machine.describe(torch.device(settings.device or machine.pick_device()))
    done = len(settings.rungs) - len(left)
    finished = f", {done} of them finished in {folder} (another --out begins anew)" if done else ""
    return f"{len(settings.rungs)} rungs on {settings.data}{finished}: about {duration(seconds)} on {here}"


def facts(settings: Ladder, corpus: Corpus, tokenizer: Tokenizer) -> dict[str, Any]:
    """What one must know to repeat the ladder."""
    return {
        "title": f"The ladder on {corpus.name}",
        "command": spelled(settings),
        "machine": machine.describe(torch.device(settings.device or machine.pick_device())),
        "corpus": corpus.describe("train", "validation"),
        "tokenizer": f"{tokenizer.kind}, {tokenizer.vocab:,} entries (sha256 {tokenizer.hash[:12]})",
        "prompt": settings.prompt,
        "seed": settings.seed,
        "minutes": f"{settings.minutes:g}",
        "date": time.strftime("%Y-%m-%d %H:%M"),
    } | machine.versions()
