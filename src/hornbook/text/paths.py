"""Text that a user names: a file, a folder, rows of .jsonl, .csv or .parquet, compressed or not, or standard input."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

from hornbook.errors import UserError
from hornbook.text.corpus import Corpus
from hornbook.text.files import is_binary, is_rows, read_documents
from hornbook.text.splits import SPLITS, blocks, cut_one_document, hash64, repaired, split_of
from hornbook.text.volume import text_volume

NAMED = {"train": "train", "valid": "validation", "validation": "validation", "val": "validation", "dev": "validation"}
NAMED["test"] = "test"
LONG = 20_000
"""Characters from which a text is cut into blocks, so that there are documents to compare."""

MORE = "Each needs text of its own: give a longer text, or more documents that differ."
NAME_IT = "Put a file or a folder into it that is named after that split."


def path_corpus(path: str, column: str) -> Corpus:
    """The corpus at a path. A folder with train, validation or test files or folders keeps those splits; all else is
    split by the documents' hashes. A text, or split, of one document is cut into blocks. Errors come with the first
    document."""
    if path != "-" and is_prepared(Path(path).expanduser()):
        raise UserError(f"{path} is a prepared corpus, tokens and no text: train, sweep, evaluate and quantize take it")
    name, licence, source = ("standard input" if path == "-" else path), "licence not stated", "given by the user"
    found = _find(path)
    named = {
        split: files for split in SPLITS if (files := [file for file in found if named_split(file, path) == split])
    }
    volume = partial(text_volume, [file for files in named.values() for file in files] if "train" in named else found)
    if "train" in named:
        read = lambda split: _read_split(named[split], column)  # noqa: E731
        return Corpus(name, licence, source, read, lambda: tuple(named), volume=partial(volume, column), remedy=NAME_IT)
    documents = cache(lambda: _Documents(found, column))
    return _split_by_hash(name, licence, source, documents, partial(volume, column))


def is_prepared(folder: Path) -> bool:
    """Whether a folder is a corpus as tokens. UserError for one that was not finished."""
    if not (folder / "tokenizer" / "tokenizer.json").is_file():
        return False
    whole = (folder / "corpus.json").is_file()
    if not whole and any((folder / "train").glob("*.safetensors")):
        raise UserError(f"{folder} has no corpus.json, so it is not finished: run hornbook prepare again, to its end")
    return whole


class _Documents:
    """The documents of some files, read through once to see how they split."""

    def __init__(self, files: list[str], column: str) -> None:
        self.files, self.column = files, column
        self.cut: dict[str, list[str]] = {}
        self.kept = list(_read_all(files, column)) if files == ["-"] else None  # a pipe can be read only once
        self.names = repaired(self._keys())
        if len(self.names) == 1:
            self.cut = cut_one_document(next(self._texts()))

    def _texts(self) -> Iterator[str]:
        texts = self.kept if self.kept is not None else _read_all(self.files, self.column)
        return (text for text in texts if text)

    def _keys(self) -> Iterator[int]:
        count = 0
        for count, text in enumerate(self._texts(), start=1):  # noqa: B007
            yield hash64(text)
        if not count:
            raise UserError(f"there is no document in {', '.join(self.files[:3])}")

    def split(self, split: str) -> Iterator[str]:
        """The documents of one split."""
        if self.cut:
            return iter(self.cut.get(split, []))
        return (text for text in self._texts() if self._split_of(hash64(text)) == split)

    def all(self) -> Iterator[tuple[str, str]]:
        """Every document after its split."""
        if self.cut:
            return ((split, text) for split in reversed(SPLITS) for text in self.cut.get(split, []))
        return ((self._split_of(hash64(text)), text) for text in self._texts())

    def _split_of(self, key: int) -> str:
        return self.names.get(key) or split_of(key)

    @property
    def splits(self) -> tuple[str, ...]:
        if self.cut:
            return tuple(split for split in SPLITS if split in self.cut)
        return tuple(split for split in SPLITS if not self.names or split in self.names.values())


def _split_by_hash(
    name: str, licence: str, source: str, documents: Callable[[], _Documents], volume: Callable[[], float]
) -> Corpus:
    read, splits = (lambda split: documents().split(split)), (lambda: documents().splits)
    return Corpus(name, licence, source, read, splits, lambda: documents().all(), volume, MORE)


def _find(path: str) -> list[str]:
    """The files at a path, sorted: itself, or every text file below a folder, hidden and binary ones left out."""
    folder = Path(path).expanduser()
    if path == "-" or not folder.is_dir():
        return [path if path == "-" else str(folder)]
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(here, name) for name in files if not name.startswith(".")]
    texts = [file for file in sorted(found) if os.path.getsize(file) and (is_rows(file) or not is_binary(file))]
    if not texts:
        raise UserError(f"there is no text file in the folder {path}")
    return texts


def named_split(file: str, root: str) -> str | None:
    """The split that a file's own name or its folder's name, just below the root, states."""
    folder = Path(root).expanduser()
    parts = Path(file).relative_to(folder).parts if folder.is_dir() else ()
    words = re.split(r"[.\-_]", parts[0].lower()) if parts else []  # wiki.train.tokens, train-00000-of-00001.parquet
    return next((NAMED[word] for word in words if word in NAMED), None)


def _read_split(files: list[str], column: str) -> Iterator[str]:
    """The documents of a split that has files of its own; a single long text is cut into blocks."""
    if len(files) == 1 and not is_rows(files[0]):
        return (block for text in _read_all(files, column) for block in (blocks(text) if len(text) > LONG else [text]))
    return _read_all(files, column)


def _read_all(files: list[str], column: str) -> Iterator[str]:
    for file in files:
        yield from read_documents(file, column)
