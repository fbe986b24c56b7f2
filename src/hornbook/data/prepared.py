"""A prepared corpus: a folder, here or at an address, with corpus.json, its tokeniser, and parts that are shards.

What is read of it is what corpus.json says: a part here is measured and summed once, one that lies elsewhere is
measured when it is first asked for, and summed once all of it has come.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hornbook.atomic import written_aside
from hornbook.data.blocks import Cache, told, usual_cache
from hornbook.data.fetching import LARGE, SMALL, Fetcher, RemotePart
from hornbook.data.pieces import AGAIN, LocalPart, Part, PartFacts, Pieces
from hornbook.data.remote import Store, is_address
from hornbook.data.shards import Shard
from hornbook.errors import UserError, unknown
from hornbook.progress import Bar, say
from hornbook.small_files import read_bytes
from hornbook.text.downloads import sha256_of
from hornbook.text.home import home
from hornbook.text.space import gigabytes
from hornbook.text.splits import SPLITS
from hornbook.text.tokenizers import Tokenizer, load_tokenizer

FACTS = "corpus.json"
FORM = "1"
"""The version of the folder's format."""


class PreparedShard(Shard):
    """A split of a prepared corpus. What is known of each document is read when somebody asks for it."""

    pieces: Pieces

    def __init__(self, pieces: Pieces, vocab: int, separator: int) -> None:
        facts = [part.facts for part in pieces.parts]
        restorable = all(fact.restorable for fact in facts)
        values = {"tokens": pieces, "pieces": pieces, "vocab": vocab, "separator": separator, "restorable": restorable}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def documents(self) -> int:
        return sum(part.facts.documents for part in self.pieces.parts)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        return self.pieces.joined("starts")

    @cached_property
    def document_bytes(self) -> NDArray[np.int64]:
        return self.pieces.joined("document_bytes")

    @cached_property
    def document_words(self) -> NDArray[np.int64]:
        return self.pieces.joined("document_words")


class Prepared:
    """A prepared corpus by its folder or address. What is wrong with it is a UserError."""

    def __init__(
        self,
        place: str,
        pauses: Sequence[float] | None = None,
        cache: Cache | None = None,
        block: int | None = None,
    ) -> None:
        """`pauses` in seconds between two times that a server is asked which does not answer, default as in `remote`;
        `cache` for the blocks of files that lie elsewhere, of `block` bytes."""
        self.place = place.removeprefix("file://").rstrip("/") or place
        self.store = Store(self.place, pauses) if is_address(self.place) else None
        self.given_cache, self.block = cache, block
        facts = read_facts(self.read(FACTS), f"{self.place}/{FACTS}")
        self.name, self.licence, self.source = (str(facts.get(key) or "") for key in ("name", "licence", "source"))
        self.tokenizer_hash, self.vocab, self.separator = facts["tokenizer"], facts["vocab"], facts["separator"]
        self.parts: dict[str, list[PartFacts]] = facts["parts"]

    def read(self, file: str) -> bytes:
        """All of a small file."""
        if self.store is not None:
            return self.store.read(file)
        return read_bytes(Path(self.place).expanduser() / file)

    @cached_property
    def cache(self) -> Cache:
        return self.given_cache or usual_cache()

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if self.parts.get(split))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The one that it was prepared with."""
        folder = Path(self.place).expanduser() / "tokenizer"
        if self.store is not None:
            folder = home() / "tokenizers" / f"prepared-{self.tokenizer_hash[:16]}"
            for name in ("tokenizer_config.json", "tokenizer.json"):  # the latter's presence is taken as a whole one
                if not (folder / "tokenizer.json").exists():
                    with written_aside(folder / name) as aside:
                        aside.write_bytes(self.read(f"tokenizer/{name}"))
        found = load_tokenizer(folder)
        if found.hash != self.tokenizer_hash or found.vocab != self.vocab or found.eos != self.separator:
            raise UserError(f"the tokeniser in {folder} is not the one that {self.place} was prepared with: {AGAIN}")
        return found

    def fingerprint(self) -> str:
        """What a run has learnt from: the sums of all parts to train on."""
        return hashlib.sha256("".join(part.sha256 for part in self.parts.get("train", [])).encode()).hexdigest()

    def shard(self, split: str, tokenizer: Tokenizer) -> Shard:
        """A split, for a model with that tokeniser. UserError where it was prepared with another one."""
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if split not in self.splits:
            raise UserError(f"{self.place} has no {split} split. It has: {', '.join(self.splits) or 'none'}.")
        if tokenizer.hash != self.tokenizer_hash:
            raise UserError(
                f"{self.place} was prepared with another tokeniser than the model's: "
                "hornbook prepare the text with --tokenizer and the model's folder"
            )
        return PreparedShard(Pieces(self.opened(self.parts[split])), self.vocab, self.separator)

    def opened(self, facts: list[PartFacts]) -> list[Part]:
        """The parts, ready to be read."""
        if self.store is not None:
            fetcher = self.fetcher
            return [RemotePart(fetcher, one, self.tokenizer_hash) for one in facts]
        folder = Path(self.place).expanduser()
        parts = [LocalPart(folder / one.file, one, self.tokenizer_hash) for one in facts]
        check_sums(self.place, parts, self.cache)
        return list(parts)

    @cached_property
    def fetcher(self) -> Fetcher:
        assert self.store is not None
        size = sum(part.size for parts in self.parts.values() for part in parts)
        say(f"{self.place}: {gigabytes(size)}, read {told(self.cache)}")
        return Fetcher(self.store, self.cache, self.block or (LARGE if size <= self.cache.bound else SMALL))


def check_sums(place: str, parts: Sequence[LocalPart], cache: Cache) -> None:
    """UserError for a part whose content is not what corpus.json says. A file is summed once, until it is changed."""
    marks = {part: mark(part) for part in parts}
    unknown_ones = [part for part in parts if cache.read(marks[part]) is None]
    done, total = 0, sum(part.facts.size for part in unknown_ones)
    with Bar(f"checking {place}") as bar:
        for part in unknown_ones:
            bar.show(done, total, gigabytes(total))
            if sha256_of(part.path) != part.facts.sha256:
                raise UserError(f"{part.path} has not the SHA-256 that corpus.json says: {AGAIN}")
            cache.store(marks[part], b"")
            done += part.facts.size


def mark(part: LocalPart) -> str:
    """What the cache calls the knowledge that a file here is whole."""
    about = os.stat(part.path)
    where = f"{part.path.resolve()}\n{about.st_size}\n{about.st_mtime_ns}"
    return f"{part.facts.sha256[:40]}-here-{hashlib.sha256(where.encode()).hexdigest()[:16]}"


def read_facts(content: bytes, where: str) -> dict[str, Any]:
    """What corpus.json says, its parts as `parts`. UserError for anything that no corpus.json says."""
    try:
        facts: dict[str, Any] = json.loads(content)
        if str(facts["version"]) != FORM:
            raise UserError(f"{where} is of version {facts['version']!r}, not {FORM}: prepare the corpus again")
        vocab, separator = facts["vocab"], facts["separator"]
        if not (type(vocab) is type(separator) is int and 0 <= separator < vocab and len(facts["tokenizer"]) == 64):
            raise ValueError("its vocabulary and separator do not go together")
        dtype = np.dtype(np.uint16 if vocab <= 2**16 else np.uint32)
        parts = {split: [part_of(one, dtype) for one in ones] for split, ones in facts["splits"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        told = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"{where} is not what hornbook prepare writes ({told}): {AGAIN}") from None
    return facts | {"parts": parts}


LONGEST_HEADER = 1 << 20
"""Bytes before the numbers of a part, all of which are read at once."""


def part_of(told: dict[str, Any], dtype: np.dtype) -> PartFacts:
    """One part of corpus.json. ValueError, KeyError or TypeError for what is none."""
    names = ("tokens", "documents", "text_bytes", "size")
    numbers = {name: told[name] for name in names}
    path = PurePosixPath(told["file"])
    part = PartFacts(str(path), **numbers, restorable=told["restorable"], sha256=told["sha256"], dtype=dtype)
    if path.is_absolute() or ".." in path.parts or "\\" in part.file:
        raise ValueError(f"{part.file!r} is not a file in the folder")
    if any(type(number) is not int or number < 0 for number in numbers.values()) or type(part.restorable) is not bool:
        raise ValueError(f"the numbers of {part.file} are none")
    if len(part.sha256) != 64 or set(part.sha256) - set("0123456789abcdef"):
        raise ValueError(f"the SHA-256 of {part.file} is none")
    if part.tokens < part.documents + 1 or not 16 <= part.header <= LONGEST_HEADER or part.header % 8:
        raise ValueError(f"{part.file} has not the room of {part.tokens} tokens of {part.documents} documents")
    return part
