"""A split of a corpus as token ids on disk, memory-mapped.

The file is a safetensors file, so its header is JSON and nothing in it is executed. The stream is
`sep d1 sep d2 sep ...`: every document stands between two separators, each of which closes one document and opens the
next, so every token but the first is a target exactly once.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from hornbook.atomic import remove_abandoned, written_aside
from hornbook.data.restoring import Ids, Restores
from hornbook.errors import PassingError, UserError
from hornbook.progress import Bar, say
from hornbook.text.corpora import Corpus
from hornbook.text.corpus import Meter
from hornbook.text.home import home
from hornbook.text.space import require_space
from hornbook.text.tokenizers import Tokenizer

Encoded = Iterable[tuple[str, Ids]]
"""Documents, each with its ids."""
VERSION = "1"
DTYPES = {"U16": np.uint16, "U32": np.uint32, "I64": np.int64}
TENSORS = ("tokens", "starts", "document_bytes", "document_words")
"""What a shard holds, in the order in which it is written; all but the tokens are int64."""


@dataclass(frozen=True)
class Shard:
    """tokens: (N,) uint16 or uint32. starts: (documents + 1,) int64: each document's first token, and N at the end."""

    tokens: NDArray[np.unsignedinteger]
    starts: NDArray[np.int64]
    document_bytes: NDArray[np.int64]
    """UTF-8 bytes of each document's text."""
    document_words: NDArray[np.int64]
    """Whitespace-separated words of each document's text."""
    vocab: int
    separator: int
    restorable: bool
    """Decoding gives the text back exactly, for every document; without that there are no bits per byte."""

    @property
    def documents(self) -> int:
        return len(self.document_bytes)

    @property
    def length(self) -> int:
        """Tokens N."""
        return len(self.tokens)


def shard_path(corpus: Corpus, tokenizer: Tokenizer, split: str, folder: Path) -> Path:
    """Where the shard of a split lies: its name is the hashes of the text and of the tokeniser."""
    return folder / "shards" / f"{corpus.measure(split).fingerprint[:16]}-{tokenizer.hash[:16]}.safetensors"


def open_split(
    corpus: Corpus,
    tokenizer: Tokenizer,
    split: str,
    folder: Path | None = None,
) -> Shard:
    """The shard of a split, prepared first (with a progress bar) where it is missing or of another version."""
    path = shard_path(corpus, tokenizer, split, folder or home())
    wanted = {"version": VERSION, "tokenizer": tokenizer.hash, "text": corpus.measure(split).fingerprint}
    if path.exists():
        try:
            return read_shard(path, wanted)
        except UserError:
            path.unlink()
    remove_abandoned(path)
    say(corpus.describe(split))
    with Bar(f"preparing {corpus.name} {split}") as bar:
        encoded = encode_documents(as_measured(corpus, split), tokenizer, corpus.size(split), bar.show)
        write_shard(path, with_room(encoded, path.parent, corpus, split, tokenizer), tokenizer, wanted)
    return read_shard(path, wanted)


def as_measured(corpus: Corpus, split: str) -> Iterator[str]:
    """The documents of a split; after the last a UserError where they are not those that were measured."""
    meter = Meter()
    for document in corpus.documents(split):
        meter.add(document)
        yield document
    if meter.measure() != corpus.measure(split):
        raise UserError(f"{corpus.name} {split} changed while it was read: the same command again reads it anew")


def encode_documents(
    documents: Iterator[str], tokenizer: Tokenizer, size: int, progress: Callable[[int, int], None]
) -> Iterator[tuple[str, list[int]]]:
    """Each document with its ids; `progress` hears of bytes done and in all."""
    done = 0
    while group := list(islice(documents, 256)):
        yield from zip(group, tokenizer.encode_batch(group), strict=True)
        done += sum(len(text.encode()) for text in group)
        progress(done, size)


def with_room(
    encoded: Iterator[tuple[str, list[int]]], folder: Path, corpus: Corpus, split: str, tokenizer: Tokenizer
) -> Iterator[tuple[str, list[int]]]:
    """The same documents; before the first, a UserError where the disk has no room for all, judged by the first 256."""
    first = list(islice(encoded, 256))
    share = corpus.size(split) / max(1, sum(len(text.encode()) for text, _ in first))
    tokens = share * sum(len(ids) + 1 for _, ids in first)
    needed = tokens * (2 if tokenizer.vocab <= 2**16 else 4) + 24 * corpus.measure(split).documents
    require_space(folder, needed, f"{corpus.name} {split} as tokens")
    return chain(first, encoded)


def write_shard(
    path: Path, encoded: Encoded, tokenizer: Tokenizer, metadata: dict[str, str], restores: Restores | None = None
) -> None:
    """Write a shard aside, document by document, and rename it in one step. Memory: 24 bytes a document.

    `restores` judges whether the documents can be had back, `Restores` unless given.
    """
    separator_of(tokenizer)
    try:
        with written_aside(path) as aside, open(aside, "wb", buffering=1 << 20) as file:
            write_stream(file, encoded, tokenizer, metadata, restores or Restores(tokenizer))
    except OSError as error:
        raise PassingError(f"could not write the shard {path}: {error}") from error


def separator_of(tokenizer: Tokenizer) -> int:
    """What stands between documents; a UserError where a tokeniser has no such token."""
    if tokenizer.eos is None:
        raise UserError("this tokeniser has no end-of-text token, so documents cannot be told apart")
    return tokenizer.eos


def write_stream(
    file: BinaryIO, encoded: Encoded, tokenizer: Tokenizer, metadata: dict[str, str], restores: Restores
) -> None:
    """Tokens as they come, behind room for the header; then what is known of each document; then the header."""
    dtype = np.dtype(np.uint16 if tokenizer.vocab <= 2**16 else np.uint32)
    facts = metadata | {"vocab": str(tokenizer.vocab), "separator": str(tokenizer.eos), "restorable": "false"}
    room = len(header(dict.fromkeys(TENSORS, 2**62), dtype, facts))  # with the longest numbers
    file.seek(room)
    file.write(np.array([tokenizer.eos], dtype).tobytes())
    starts, sizes, words = array("q", [1]), array("q"), array("q")
    for text, ids in encoded:
        row = np.empty(len(ids) + 1, dtype)
        row[:-1], row[-1] = ids, tokenizer.eos
        file.write(row.data)
        data = text.encode()
        starts.append(starts[-1] + len(ids) + 1)
        sizes.append(len(data))
        words.append(len(text.split()))
        restores.see(data, ids)
    if not sizes:
        raise UserError("there is no document in this split")
    for numbers in (starts, sizes, words):
        file.write(numbers)
    counts = dict(zip(TENSORS, (starts[-1], len(starts), len(sizes), len(words)), strict=True))
    file.seek(0)
    facts["restorable"] = json.dumps(restores.all)
    file.write(header(counts, dtype, facts, room))


def header(counts: dict[str, int], token_dtype: np.dtype, facts: dict[str, str], room: int = 0) -> bytes:
    """The beginning of a safetensors file of vectors, length by name in their order: at least `room` bytes, a multiple
    of 8."""
    entries: dict[str, object] = {"__metadata__": facts}
    end = 0
    for name, length in counts.items():
        dtype = token_dtype if name == "tokens" else np.dtype(np.int64)
        begin, end = end, end + length * dtype.itemsize
        kind = next(kind for kind, known in DTYPES.items() if known == dtype)
        entries[name] = {"dtype": kind, "shape": [length], "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text = text.ljust(max(room - 8, len(text) + -len(text) % 8))
    return len(text).to_bytes(8, "little") + text


def read_shard(path: Path, wanted: dict[str, str]) -> Shard:
    """Map a shard into memory; a UserError where it is damaged or was made from something else."""
    try:
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
            small = {name: file.get_tensor(name) for name in ("starts", "document_bytes", "document_words")}
    except (SafetensorError, OSError) as error:
        raise UserError(f"the shard {path} is damaged ({error}); delete it and run again") from error
    if any(facts.get(key) != value for key, value in wanted.items()):
        raise UserError(f"the shard {path} was made by another version or from other text; delete it and run again")
    return Shard(
        tokens=map_tensor(path, "tokens"),
        vocab=int(facts["vocab"]),
        separator=int(facts["separator"]),
        restorable=json.loads(facts["restorable"]),
        **small,
    )


def map_tensor(path: Path, name: str) -> np.memmap:
    """One tensor of a safetensors file, mapped and not read (8 bytes of header length, JSON header, then the data)."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
    return np.memmap(path, DTYPES[entry["dtype"]], "r", 8 + length + entry["data_offsets"][0], tuple(entry["shape"]))
