"""The one reading of a corpus that is prepared: documents in order, duplicates left out, cut into parts.

Which documents stand in which part depends on the corpus and the size of a part alone, whoever encodes them.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from hornbook.text.splits import SPLITS

DIGEST = 16
"""Bytes of a document's SHA-256 by which it is known again: among 10 ** 12 different ones two are taken for equal with
a chance of 10 ** -15."""


@dataclass
class Part:
    """Documents of a split, one after the other, as UTF-8."""

    split: str
    number: int
    text: bytearray = field(default_factory=bytearray)
    ends: array[int] = field(default_factory=lambda: array("q"))
    """Where each document ends."""
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def name(self) -> str:
        return f"{self.split}/{self.number:05d}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the documents' own, one after the other: which documents there are, and where each ends."""
        return self.digest.hexdigest()

    def add(self, data: bytes, digest: bytes) -> None:
        self.text += data
        self.ends.append(len(self.text))
        self.digest.update(digest)


class Known(Protocol):
    """Digests that have been seen."""

    def add(self, digest: bytes) -> bool:
        """Note one; whether it is new."""


def cut(
    documents: Iterable[tuple[str, str]], size: int, known: Known | None, duplicates: Counter[str]
) -> Iterator[Part]:
    """The parts of a corpus: each closes with the document that takes it to `size` bytes or beyond.

    A document that is `known` is left out and counted, by its split. Memory: a part of each split.
    """
    growing: dict[str, Part] = {}
    for split, text in documents:
        data = text.encode()
        digest = hashlib.sha256(data).digest()
        if known is not None and not known.add(digest[:DIGEST]):
            duplicates[split] += 1
            continue
        part = growing.setdefault(split, Part(split, 0))
        part.add(data, digest)
        if len(part.text) >= size:
            growing[split] = Part(split, part.number + 1)
            yield part
    yield from (growing[split] for split in SPLITS if split in growing and growing[split].ends)


class Digests:
    """A set of digests in 23 to 46 bytes each, where a set of Python's takes about 90: a table with open addresses.

    It is doubled when it is seven tenths full; for as long as that takes, the old one is there too.
    """

    def __init__(self, room: int = 1 << 16) -> None:
        self.room, self.count, self.empty_one = room, 0, False
        self.table = bytearray(DIGEST * room)

    def add(self, digest: bytes) -> bool:
        """Note one; whether it is new."""
        if digest == EMPTY:
            new, self.empty_one = not self.empty_one, True
            return new
        at = self.place(digest)
        if self.table[at : at + DIGEST] == digest:
            return False
        self.table[at : at + DIGEST] = digest
        self.count += 1
        if 10 * self.count > 7 * self.room:
            self.grow()
        return True

    def place(self, digest: bytes) -> int:
        """Where it is, or would be."""
        table, end = self.table, DIGEST * self.room
        at = int.from_bytes(digest[:8], "little") % self.room * DIGEST
        while (found := table[at : at + DIGEST]) != digest and found != EMPTY:
            at = (at + DIGEST) % end
        return at

    def grow(self) -> None:
        old, self.room = self.table, 2 * self.room
        self.table = bytearray(DIGEST * self.room)
        for start in range(0, len(old), DIGEST):
            if (digest := bytes(old[start : start + DIGEST])) != EMPTY:
                at = self.place(digest)
                self.table[at : at + DIGEST] = digest


EMPTY = bytes(DIGEST)
