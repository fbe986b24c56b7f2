"""The work of `hornbook compare`: runs side by side, and what they make of one text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch

from hornbook import machine
from hornbook.checkpoint import load
from hornbook.config import Compare
from hornbook.errors import UserError, visible
from hornbook.evaluation.sentences import Sentence, score_sentence
from hornbook.inspection.grid import Block, Grid, plain, wrapped
from hornbook.inspection.steps import finite
from hornbook.inspection.walk import read, spell
from hornbook.layers.model import LanguageModel
from hornbook.report import comparison, wording
from hornbook.report.comparison import SideBySide

TOP = 5
"""Likeliest next tokens that are shown."""


@dataclass(frozen=True)
class Reading:
    """What a model makes of a text."""

    sentence: Sentence | None
    """None for a model that gives no probability of a text."""
    likeliest: tuple[tuple[str, float], ...]
    """What it holds likely to come next."""
    note: str = ""
    restored: bool = True
    """Whether its tokeniser gives the text back."""

    @property
    def bits_per_byte(self) -> float | None:
        """None where the model would be paid for what its tokeniser threw away."""
        if self.sentence is None or not self.restored:
            return None
        return -self.sentence.log_prob / math.log(2) / len(self.sentence.text.encode())


@dataclass(frozen=True)
class Comparison:
    """Runs side by side. `print` shows all that `hornbook compare` does."""

    runs: SideBySide
    text: str | None
    readings: tuple[Reading, ...]
    """One a run, where there is a text."""

    def __str__(self) -> str:
        return plain(shown(self))


def compare_runs(settings: Compare) -> Comparison:
    """Reads the runs' files, and with a text each model in turn. UserError for what is no run, and for one only."""
    found = comparison.opened(settings.runs)
    if settings.text is None:
        return Comparison(found, None, ())
    device = settings.device or machine.pick_device()
    folders = [record.folder for record in found.records]
    readings = tuple(reading(load(folder, device, text=True), settings.text) for folder in folders)
    return Comparison(found, settings.text, readings)


@torch.inference_mode()
def reading(model: LanguageModel, text: str) -> Reading:
    """How likely a model holds a text, as the beginning of a document, and what it would go on with."""
    try:
        sentence = score_sentence(model, text)
    except UserError as error:
        return Reading(None, (), str(error))
    ids, segments = read(model, text)
    if not model.reads_source:
        ids = ids[-model.config.context :]  # a text that just fits has a bos before it
    row = None if segments is None else segments[None].to(model.device)
    shares = model(torch.tensor([ids], device=model.device), segments=row)[0, -1].float().softmax(-1)
    best = shares.topk(min(TOP, len(shares)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    likeliest = tuple((spell(model, token), share) for token, share in pairs)
    return Reading(sentence, likeliest, warning(model, sentence), model.tokenizer.restores(text))


def warning(model: LanguageModel, sentence: Sentence) -> str:
    """Why its figure may not compare."""
    told = []
    if not model.tokenizer.restores(sentence.text):
        told.append("its tokeniser does not give the text back, so there are no bits per byte")
    if model.config.bos is None:
        told.append("its first token is not scored: the config has no bos to stand before it")
    if sentence.unknown:
        told.append(f"it does not know {', '.join(map(repr, sentence.unknown))}")
    if model.reads_source:
        told.append("the text is scored as written without a source, and goes on as one written from it")
    return "; ".join(told)


def shown(found: Comparison) -> list[Block]:
    """What a person reads."""
    blocks = comparison.shown(found.runs)
    return [*blocks, *text_blocks(found.runs.names, found.text, found.readings)] if found.text is not None else blocks


def text_blocks(names: Sequence[str], text: str, readings: Sequence[Reading]) -> list[Block]:
    """The text's probability, what comes next, and what is odd about either."""
    rows = [
        ("tokens", *(wording.DASH if r.sentence is None else str(len(r.sentence.nats)) for r in readings)),
        (
            "log-probability, nats",
            *(wording.DASH if r.sentence is None else f"{r.sentence.log_prob:.4f}" for r in readings),
        ),
        ("bits per byte", *(wording.bits(r.bits_per_byte) for r in readings)),
    ]
    following = zip_longest(*(r.likeliest for r in readings))
    nexts = [
        (str(place), *("" if each is None else f"{visible(repr(each[0]))} {each[1]:.4f}" for each in row))
        for place, row in enumerate(following, start=1)
    ]
    notes = [f"{name}: {r.note}." for name, r in zip(names, readings, strict=True) if r.note]
    grids: list[Block] = [Grid((f"of {visible(repr(text))}", *names), rows, len(names))]
    return [*grids, *([Grid(("comes next", *names), nexts, len(names))] if nexts else []), *map(wrapped, notes)]


def as_json(found: Comparison) -> dict[str, Any]:
    """The same as one object."""
    told = comparison.as_json(found.runs)
    if found.text is None:
        return told
    for row, each in zip(told["runs"], found.readings, strict=True):
        row["text"] = {
            "tokens": None if each.sentence is None else len(each.sentence.nats),
            "log_prob": None if each.sentence is None else finite(each.sentence.log_prob),
            "bits_per_byte": finite(each.bits_per_byte),
            "next": [{"piece": piece, "probability": share} for piece, share in each.likeliest],
            "note": each.note or None,
        }
    return told | {"text": found.text}
