"""What one worker does: the documents of a part become a shard, its sum is taken, and both are put in their place."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from hornbook.data.places import Place
from hornbook.data.restoring import Covers, Ids
from hornbook.data.shards import VERSION, read_shard, write_shard
from hornbook.errors import UserError
from hornbook.proc import read_kilobytes
from hornbook.text.downloads import sha256_of
from hornbook.text.tokenizer_files import Specials
from hornbook.text.tokenizers import Tokenizer

GROUP = 8_000_000
"""Bytes of text that are encoded together."""
ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
"""For each worker: there is one a core."""


class Setup(NamedTuple):
    """What a worker must know."""

    place: str
    definition: str
    """The tokenizer.json."""
    specials: tuple[str | None, ...]


class Text(NamedTuple):
    """A part as it is sent to a worker."""

    name: str
    fingerprint: str
    ends: bytes
    """int64."""
    data: Any
    """The documents' bytes, one after the other: any buffer."""

    def documents(self) -> Iterator[list[str]]:
        """The documents in groups of about so much text."""
        begin, size, group, view = 0, 0, [], memoryview(self.data)
        for end in array("q", self.ends):
            group.append(str(view[begin:end], "utf-8"))
            size, begin = size + end - begin, end
            if size >= GROUP:
                yield group
                group, size = [], 0
        if group:
            yield group


@dataclass
class Done:
    """What came of a part."""

    record: dict[str, Any]
    """What corpus.json says of it, and the text that it was made from."""
    peak: int
    """The most bytes of memory that the worker ever had; 0 where the system does not say."""


def encode_part(text: Text, setup: Setup) -> Done | UserError:
    """Write the shard of a part, then its record. What stands in the way, a full disk say, is returned."""
    try:
        place, tokenizer = Place(setup.place), tokenizer_of(setup)
        facts = {"version": VERSION, "tokenizer": tokenizer.hash, "text": text.fingerprint}
        with place.receiving(f"{text.name}.safetensors") as path:
            write_shard(path, encoded(text, tokenizer), tokenizer, facts, Covers(tokenizer))
            record = described(path, f"{text.name}.safetensors", facts)
        place.write(f"{text.name}.json", json.dumps(record).encode())
        return Done(record, read_kilobytes("/proc/self/status", "VmHWM"))
    except UserError as error:
        return error


def encoded(text: Text, tokenizer: Tokenizer) -> Iterator[tuple[str, Ids]]:
    for group in text.documents():
        yield from zip(group, tokenizer.encode_arrays(group), strict=True)


def described(path: Path, name: str, facts: dict[str, str]) -> dict[str, Any]:
    """What is to be known of a shard."""
    shard = read_shard(path, facts)
    return {
        "file": name,
        "tokens": len(shard.tokens),
        "documents": shard.documents,
        "text_bytes": int(shard.document_bytes.sum()),
        "restorable": shard.restorable,
        "size": path.stat().st_size,
        "sha256": sha256_of(path),
        "text": facts["text"],
    }


@lru_cache(1)
def tokenizer_of(setup: Setup) -> Tokenizer:
    """Built once a worker, which has one thread from then on."""
    os.environ.update(ONE_THREAD)
    return Tokenizer(tokenizers.Tokenizer.from_str(setup.definition), Specials(*setup.specials))


def setup_of(place: Place, tokenizer: Tokenizer) -> Setup:
    where = place.name if place.folder is None else str(place.folder)
    return Setup(where, tokenizer.core.to_str(), tuple(tokenizer.specials))
