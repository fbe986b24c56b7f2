"""A corpus: documents by split, with their licence, source, size and hash."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from hornbook.errors import UserError, unknown
from hornbook.text.splits import SPLITS


class Measure(NamedTuple):
    """What one reading of a split found."""

    documents: int
    size: int
    """Bytes of UTF-8 in all documents together."""
    sha256: str
    """Of all documents, one after the other: the sum of the file itself where its documents make it up."""
    fingerprint: str
    """SHA-256 that also covers where documents end: prepared tokens belong to this."""


class Meter:
    """Takes the measure of documents, one after the other."""

    def __init__(self) -> None:
        self.texts, self.shape = hashlib.sha256(), hashlib.sha256()
        self.documents = self.size = 0

    def add(self, document: str) -> None:
        data = document.encode()
        self.texts.update(data)
        self.shape.update(len(data).to_bytes(8, "big"))
        self.documents, self.size = self.documents + 1, self.size + len(data)

    def measure(self) -> Measure:
        """Of all that were added."""
        fingerprint = hashlib.sha256(self.texts.digest() + self.shape.digest()).hexdigest()
        return Measure(self.documents, self.size, self.texts.hexdigest(), fingerprint)


@dataclass
class Corpus:
    """Text to train and measure on. `read(split)` gives the documents of a split that `find_splits()` lists."""

    name: str
    licence: str
    source: str
    read: Callable[[str], Iterable[str]]
    find_splits: Callable[[], tuple[str, ...]] = lambda: SPLITS
    read_all: Callable[[], Iterable[tuple[str, str]]] | None = None
    """Every document after its split, in one reading, where any split by itself takes a reading of everything."""
    volume: Callable[[], float] = lambda: math.nan
    """About how many bytes of text there are, known without reading them; NaN where nobody knows."""
    remedy: str = ""
    """What gives it a split that it lacks."""
    _measures: dict[str, Measure] = field(default_factory=dict, repr=False)

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of train, validation and test that this corpus has. May read the corpus, or parts of it."""
        return self.find_splits()

    def documents(self, split: str) -> Iterator[str]:
        """The non-empty documents of a split, always in the same order. Raises UserError for a split that is not
        there."""
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if split not in self.splits:
            hint = f" {self.remedy}" if self.remedy else ""
            raise UserError(f"{self.name} has no {split} split. It has: {', '.join(self.splits)}.{hint}")
        return (text for text in self.read(split) if text)

    def stream(self) -> Iterator[tuple[str, str]]:
        """Every non-empty document after its split, in one reading; those of a split in the order of `documents`. What
        two splits have in common comes in test before validation, and in either before train."""
        if self.read_all is not None:
            return ((split, text) for split, text in self.read_all() if text)
        splits = self.splits
        return ((split, text) for split in reversed(SPLITS) if split in splits for text in self.documents(split))

    def measure(self, split: str) -> Measure:
        """Number of documents, bytes and hashes of a split; read once, then remembered."""
        if split not in self._measures:
            meter = Meter()
            for document in self.documents(split):
                meter.add(document)
            self._measures[split] = meter.measure()
        return self._measures[split]

    def sha256(self, split: str) -> str:
        """SHA-256 of the split's documents one after the other, as UTF-8."""
        return self.measure(split).sha256

    def size(self, split: str) -> int:
        """Bytes of UTF-8 in the split."""
        return self.measure(split).size

    def describe(self, *splits: str) -> str:
        """One line for people: the name, each split's size and hash (train and validation unless named), the
        licence."""
        chosen = splits or tuple(split for split in self.splits if split != "test")
        parts = [
            f"{split} {_readable(self.size(split))} (sha256 {self.sha256(split)[:12]})"
            for split in chosen or self.splits
        ]
        return f"{self.name}: {', '.join(parts)}; {self.licence}; {self.source}"


def _readable(size: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            break
        size, unit = size / 1000, {"bytes": "kB", "kB": "MB", "MB": "GB"}[unit]  # type: ignore[assignment]
    return f"{size:.3g} {unit}"
