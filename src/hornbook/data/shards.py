"""A split of a corpus as token ids on disk, memory-mapped.

The file is a safetensors file, so its header is JSON and nothing in it is executed. The stream is
`sep d1 sep d2 sep ...`: every document stands between two separators, each of which closes one document and opens the
next, so every token but the first is a target exactly once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hornbook.atomic import written_aside
from hornbook.errors import UserError
from hornbook.progress import Bar, say
from hornbook.text.corpora import Corpus
from hornbook.text.home import home
from hornbook.text.tokenizers import Tokenizer

VERSION = "1"
DTYPES = {"U16": np.uint16, "U32": np.uint32, "I64": np.int64}


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
    say(corpus.describe(split))
    with Bar(f"preparing {corpus.name} {split}") as bar:
        encoded = encode_documents(corpus.documents(split), tokenizer, corpus.size(split), bar.show)
        write_shard(path, encoded, tokenizer, wanted)
    return read_shard(path, wanted)


def encode_documents(
    documents: Iterator[str], tokenizer: Tokenizer, size: int, progress: Callable[[int, int], None]
) -> Iterator[tuple[str, list[int]]]:
    """Each document with its ids; `progress` hears of bytes done and in all."""
    done = 0
    while group := list(islice(documents, 256)):
        yield from zip(group, tokenizer.encode_batch(group), strict=True)
        done += sum(len(text.encode()) for text in group)
        progress(done, size)


def write_shard(
    path: Path, encoded: Iterator[tuple[str, list[int]]], tokenizer: Tokenizer, metadata: dict[str, str]
) -> None:
    """Write a shard aside and rename it in one step."""
    separator = tokenizer.eos
    if separator is None:
        raise UserError("this tokeniser has no end-of-text token, so documents cannot be told apart")
    dtype = np.uint16 if tokenizer.vocab <= 2**16 else np.uint32
    parts, starts, sizes, words = [np.array([separator], dtype)], [1], [], []
    restorable = True
    for text, ids in encoded:
        parts.append(np.array([*ids, separator], dtype))
        starts.append(starts[-1] + len(ids) + 1)
        sizes.append(len(text.encode()))
        words.append(len(text.split()))
        restorable = restorable and tokenizer.decode(ids) == text
    if not sizes:
        raise UserError("there is no document in this split")
    tensors = {
        "tokens": np.concatenate(parts),
        "starts": np.array(starts, np.int64),
        "document_bytes": np.array(sizes, np.int64),
        "document_words": np.array(words, np.int64),
    }
    facts = {"vocab": str(tokenizer.vocab), "separator": str(separator), "restorable": json.dumps(restorable)}
    try:
        with written_aside(path) as aside:
            save_file(tensors, aside, metadata | facts)
    except (OSError, SafetensorError) as error:
        raise UserError(f"could not write the shard {path}: {error}") from error


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
