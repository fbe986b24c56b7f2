"""One stream of tokens that lies in several files: part after part, the separator at each joint told once.

Every part begins and ends with the separator, so that all but the first leave out their first token: what comes is,
token for token, what a single shard of all documents would be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hornbook.data.shards import DTYPES, TENSORS, VERSION
from hornbook.errors import UserError

Tokens = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class PartFacts:
    """What corpus.json says of a part, a shard with these documents. Where its tensors lie follows from that."""

    file: str
    """Its path in the corpus's folder."""
    tokens: int
    documents: int
    text_bytes: int
    restorable: bool
    size: int
    """Bytes of the file."""
    sha256: str
    """Of the file."""
    dtype: np.dtype
    """Of its tokens: uint16 or uint32."""

    def place(self, name: str) -> tuple[np.dtype, int, int]:
        """(dtype, first byte in the file, how many) of a tensor: they fill the file's end, in the order of TENSORS."""
        end = self.size
        for tensor in reversed(TENSORS):
            dtype = self.dtype if tensor == "tokens" else np.dtype(np.int64)
            count = {"tokens": self.tokens, "starts": self.documents + 1}.get(tensor, self.documents)
            end -= count * dtype.itemsize
            if tensor == name:
                return dtype, end, count
        raise KeyError(name)

    @property
    def header(self) -> int:
        """Bytes of the file before its tensors."""
        return self.place("tokens")[1]

    def check_header(self, raw: bytes, where: str, tokenizer: str) -> None:
        """UserError where the beginning of the file is not that of the shard that is meant."""
        try:
            entries: dict[str, Any] = json.loads(raw[8:])
            facts = entries["__metadata__"]
            for name in TENSORS:
                dtype, begin, count = self.place(name)
                offsets = [begin - len(raw), begin - len(raw) + count * dtype.itemsize]
                same = DTYPES.get(entries[name]["dtype"]) == dtype and entries[name]["shape"] == [count]
                if not same or entries[name]["data_offsets"] != offsets:
                    raise ValueError(f"its {name} are not where they should be")
            if int.from_bytes(raw[:8], "little") != len(raw) - 8:
                raise ValueError("its header has another length")
            if facts["version"] != VERSION or facts["tokenizer"] != tokenizer:
                raise ValueError("it is of another version, or another tokeniser")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{where} is not the part that corpus.json tells of ({error}): {AGAIN}") from None


AGAIN = "prepare the corpus again, or copy it again from where it is whole"


class Part(Protocol):
    """One file of a stream, wherever it lies."""

    facts: PartFacts
    far: bool
    """Whether what is wanted soon should be fetched beforehand."""

    def take(self, index: NDArray[np.int64]) -> Tokens:
        """The tokens (N,) at places (N,) of this part."""

    def tensor(self, name: str, begin: int = 0, end: int | None = None) -> NDArray[Any]:
        """Part of a tensor, or all of it."""

    def want(self, name: str, begin: int, end: int) -> None:
        """Begin to fetch part of a tensor, and return at once."""

    def want_places(self, index: NDArray[np.int64]) -> None:
        """The same for what `take` will read."""

    def stop(self) -> None:
        """Give up what is being fetched."""


class LocalPart:
    """A file on this machine, mapped into memory."""

    far = False

    def __init__(self, path: Path, facts: PartFacts, tokenizer: str) -> None:
        """UserError where the file is not there, or is not what `facts` say."""
        self.path, self.facts = path, facts
        try:
            size = path.stat().st_size
            with open(path, "rb") as file:
                raw = file.read(facts.header)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from None
        if size != facts.size:
            raise UserError(f"{path} has {size:,} bytes, and corpus.json says {facts.size:,}: {AGAIN}")
        facts.check_header(raw, str(path), tokenizer)

    @cached_property
    def mapped(self) -> Tokens:
        dtype, begin, count = self.facts.place("tokens")
        return np.memmap(self.path, dtype, "r", begin, (count,))

    def take(self, index: NDArray[np.int64]) -> Tokens:
        return self.mapped[index]

    def tensor(self, name: str, begin: int = 0, end: int | None = None) -> NDArray[Any]:
        if name == "tokens":
            return self.mapped[begin:end]
        dtype, first, count = self.facts.place(name)
        return np.fromfile(self.path, dtype, count, offset=first)[begin:end]

    def want(self, name: str, begin: int, end: int) -> None:
        """Nothing: it is here."""

    def want_places(self, index: NDArray[np.int64]) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


class Pieces:
    """All tokens of a split, as an array of one dimension that can be asked for places, and for slices."""

    ndim = 1

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self.lengths = np.array([part.facts.tokens for part in self.parts], np.int64)
        self.begins = np.concatenate([[0], np.cumsum(self.lengths[:-1] - 1)])
        """Where each part's first token stands in the stream, which for all but the first is the last of the one
        before."""
        self.dtype = self.parts[0].facts.dtype

    @property
    def far(self) -> bool:
        """Whether anything of it lies elsewhere."""
        return any(part.far for part in self.parts)

    @property
    def shape(self) -> tuple[int]:
        return (len(self),)

    def __len__(self) -> int:
        return int(self.begins[-1] + self.lengths[-1])

    def __getitem__(self, key: Any) -> Any:
        """A token, those of a slice, or those at an array of places (in its shape)."""
        if isinstance(key, slice):
            begin, end, step = key.indices(len(self))
            return self.span(begin, end) if step == 1 else self.take(np.arange(begin, end, step, dtype=np.int64))
        index = np.asarray(key)
        if index.dtype.kind not in "iu":
            raise IndexError(f"tokens are found by whole numbers, not {index.dtype}")
        index = index.astype(np.int64)
        index = np.where(index < 0, index + len(self), index)
        if index.size and not 0 <= index.min() <= index.max() < len(self):
            raise IndexError(f"the stream has {len(self):,} tokens")
        found = self.take(index.reshape(-1)).reshape(index.shape)
        return found if index.ndim else found[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.span(0, len(self)).astype(dtype or self.dtype, copy=False)

    def take(self, index: NDArray[np.int64]) -> Tokens:
        """The tokens (N,) at places (N,) from 0 to the length."""
        where = np.searchsorted(self.begins, index, side="right") - 1
        groups = [(rows, self.parts[part], index[rows] - self.begins[part]) for part, rows in grouped(where)]
        for _, part, places in groups:  # of all parts at once, before any is waited for
            part.want_places(places)
        found = np.empty(len(index), self.dtype)
        for rows, part, places in groups:
            found[rows] = part.take(places)
        return found

    def span(self, begin: int, end: int) -> Tokens:
        """The tokens from one place up to another."""
        found = np.empty(max(0, end - begin), self.dtype)
        for part, first, last in self.overlapping(begin, end):
            at = self.begins[part] + first - begin
            found[at : at + last - first] = self.parts[part].tensor("tokens", first, last)
        return found

    def overlapping(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(part, first place in it, last one and one) for each part that a span has tokens of."""
        if begin >= end:
            return
        first = int(np.searchsorted(self.begins, begin, side="right")) - 1
        for part in range(first, len(self.parts)):
            start = int(self.begins[part])
            if start >= end:
                return
            yield part, max(0, begin - start), min(int(self.lengths[part]), end - start)

    def want(self, begin: int, end: int) -> None:
        """Begin to fetch the tokens from one place up to another."""
        for part, first, last in self.overlapping(begin, min(end, len(self))):
            self.parts[part].want("tokens", first, last)

    def stop(self) -> None:
        """Give up what is being fetched."""
        for part in self.parts:
            part.stop()

    def joined(self, name: str) -> NDArray[np.int64]:
        """What is known of each document, of all parts; `starts` counted in the stream."""
        for part in self.parts:
            part.want(name, 0, part.facts.documents)
        found = [part.tensor(name) for part in self.parts]
        if name == "starts":
            found = [starts + begin for starts, begin in zip(found, self.begins, strict=True)]
            found = [*(starts[:-1] for starts in found[:-1]), found[-1]]
        return np.concatenate(found)


def grouped(keys: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """(key, the places where it stands) for each different key."""
    if not len(keys):
        return
    if keys[0] == keys[-1] and (keys == keys[0]).all():
        yield int(keys[0]), np.arange(len(keys))
        return
    order = np.argsort(keys, kind="stable")
    cuts = np.flatnonzero(np.diff(keys[order])) + 1
    for places in np.split(order, cuts):
        yield int(keys[places[0]]), places
