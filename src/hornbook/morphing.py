"""`hornbook morph`: from GPT-2 to Llama 3 and on, one part at a time on one budget: what is each part worth?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from hornbook import machine
from hornbook.atomic import write_json
from hornbook.config import Morph, Train
from hornbook.data.shards import open_split
from hornbook.errors import UserError, unknown
from hornbook.ladder import claim, spelled
from hornbook.models.morph import CHANGES, recipes
from hornbook.progress import duration, say
from hornbook.report.morph_page import write_morph
from hornbook.scoring.intervals import student
from hornbook.text.corpora import Corpus, open_corpus
from hornbook.text.tokenizer_store import obtain_tokenizer
from hornbook.text.tokenizers import Tokenizer
from hornbook.training.pretrain import train_alone

AROUND = 6.0
"""Seconds of a run beside its budget: start, and the whole validation split at the end."""
FREE = ("stages", "seeds", "out")
"""Settings in which one command in a folder may differ from the one before."""

Runs = dict[str, list[dict[str, Any]]]
"""Stage -> the summaries of its runs, in the order of the seeds."""


def folder_of(settings: Morph) -> Path:
    """Where its runs and page lie."""
    return Path(settings.out or f"runs/morph-{'stdin' if settings.data == '-' else Path(settings.data).stem}")


def morph(settings: Morph) -> dict[str, Any]:
    """Train every stage with every seed; returns what `morph.json` in the folder says: facts, and a row a stage.

    That file and its page are written anew after each seed, of the stages and seeds of this call. Finished runs are
    kept, so that the same call carries on, and another one may add stages and seeds. Raises Interrupted, and UserError
    for an unknown stage and for a tokeniser that does not restore the text.
    """
    folder, names = folder_of(settings), chosen(settings.stages)
    device = torch.device(machine.check_device(settings.device or str(machine.pick_device())))
    corpus = open_corpus(settings.data, settings.column)
    tokenizer = obtain_tokenizer(settings.tokenizer, corpus, settings.vocab)
    if not open_split(corpus, tokenizer, "validation").restorable:
        raise UserError(
            f"the tokeniser {settings.tokenizer} does not restore {corpus.name}, so that there are no bits per byte to "
            "compare: take --tokenizer bpe or bytes"
        )
    claim(folder, settings, "settings.json", "runs", "holds something else", FREE)
    say(estimate(settings, names, folder))
    runs: Runs = {name: [] for name in names}
    for place, seed in enumerate(settings.seeds, 1):  # one after the other: an early end still compares all stages
        for number, name in enumerate(names, 1):
            say(f"[seed {seed}, {number}/{len(names)}] {name}: {CHANGES[name].words}")
            runs[name].append(train_alone(settings_of(settings, name, seed, folder)))
        told = facts(settings, corpus, tokenizer, device) | {"seeds": list(settings.seeds[:place])}
        found = {"facts": told, "stages": [row(name, runs) for name in names]}
        write_json(folder / "morph.json", found)
        write_morph(folder, found)
    return found


def chosen(stages: Collection[str]) -> list[str]:
    """The stages in their order; all where none is named. UserError for an unknown one."""
    for name in stages:
        if name not in CHANGES:
            raise unknown("stage", name, CHANGES)
    return [name for name in CHANGES if name in stages or not stages]


def settings_of(settings: Morph, name: str, seed: int, folder: Path) -> Train:
    """What trains one stage with one seed."""
    return Train(
        f"morph-{name}",
        data=settings.data,
        out=str(folder / f"{name}-{seed}"),
        column=settings.column,
        tokenizer=settings.tokenizer,
        vocab=settings.vocab,
        minutes=settings.minutes,
        seed=seed,
        device=settings.device,
        **recipes()[f"morph-{name}"],
    )


def row(name: str, runs: Runs) -> dict[str, Any]:
    """What tables and charts say of a stage: means over its seeds, and their 95 % intervals.

    `change` is the mean difference to `before`, the stage that it begins with, taken seed by seed: both drew the same
    text in the same order. `between` are changes on the way from there that were not trained by themselves.
    """
    change, here = CHANGES[name], bits(runs[name])
    before, between = start(name, runs)
    gaps = [one - other for one, other in zip(here, bits(runs[before]), strict=True)] if before else []
    return {
        "name": name,
        "words": change.words,
        "reaches": change.reaches,
        "aside": change.aside,
        "before": before,
        "between": between,
        "bits_per_byte": statistics.mean(here),
        "interval": student(here),
        "change": statistics.mean(gaps) if gaps else None,
        "change_interval": student(gaps),
    } | {key: mean(runs[name], key) for key in ("parameters", "tokens", "tokens_per_second", "peak_memory")}


def bits(runs: list[dict[str, Any]]) -> list[float]:
    """Bits per byte of each run."""
    return [run["validation"]["bits_per_byte"] for run in runs]


def mean(runs: list[dict[str, Any]], name: str) -> float | None:
    """Of a number in the summaries; None where one lacks it."""
    values = [run[name] for run in runs]
    return None if None in values else statistics.mean(values)


def start(name: str, trained: Collection[str]) -> tuple[str | None, list[str]]:
    """The last stage in front of this one that is built upon and was trained, and those between that were not."""
    earlier = [other for other in list(CHANGES)[: list(CHANGES).index(name)] if not CHANGES[other].aside]
    last = max((place for place, other in enumerate(earlier) if other in trained), default=None)
    return (None, []) if last is None else (earlier[last], earlier[last + 1 :])


def estimate(settings: Morph, names: list[str], folder: Path) -> str:
    """How long it will take, before it starts."""
    ended = [(folder / f"{name}-{seed}" / "summary.json").exists() for name in names for seed in settings.seeds]
    told = f"{len(names)} stages with {len(settings.seeds)} seeds, {60 * settings.minutes:.0f} seconds each"
    told += f", {sum(ended)} of {len(ended)} runs finished" if any(ended) else ""
    return f"{told}: about {duration(ended.count(False) * (60 * settings.minutes + AROUND))}"


def facts(settings: Morph, corpus: Corpus, tokenizer: Tokenizer, device: torch.device) -> dict[str, Any]:
    """What one must know to repeat it."""
    return {
        "data": corpus.name,
        "command": spelled(settings),
        "corpus": corpus.describe("train", "validation"),
        "tokenizer": f"{tokenizer.kind}, {tokenizer.vocab:,} entries (sha256 {tokenizer.hash[:12]})",
        "minutes": settings.minutes,
        "machine": machine.describe(device),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    } | machine.versions()
