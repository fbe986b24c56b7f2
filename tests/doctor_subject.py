"""Tiny models for the doctor to examine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from helpers import tiny_model
from hornbook.doctor.certificate import findings
from hornbook.doctor.finding import FAIL, Finding
from hornbook.doctor.subject import Subject
from hornbook.layers.model import LanguageModel
from hornbook.text.tokenizer_training import train_tokenizer

BYTES = train_tokenizer("bytes", [])
IDS = {"vocab": BYTES.vocab, "bos": BYTES.bos, "eos": BYTES.eos, "pad": BYTES.pad}


def subject_of(model: LanguageModel, scratch: Path, ours: bool = True) -> Subject:
    return Subject(model, BYTES, ours, scratch)


def healthy(family: str, scratch: Path, **changes: object) -> Subject:
    """A tiny model of a family with the tokeniser of bytes, as if it was trained here."""
    return subject_of(tiny_model(family, **(IDS | changes)), scratch)


def examined(subject: Subject) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings(subject)}


def failed(found: Iterable[Finding]) -> set[str]:
    return {finding.name for finding in found if finding.verdict == FAIL}
