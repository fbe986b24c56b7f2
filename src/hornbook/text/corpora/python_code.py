"""The source of Python's standard library without its tests: about 13 MB of code, one document a module."""

from __future__ import annotations

import tokenize
from collections.abc import Iterator

from hornbook.text.corpus import Corpus
from hornbook.text.splits import hash64, split_of
from hornbook.text.stdlib import VERSION, modules


def corpus() -> Corpus:
    """The corpus; files are read as they are asked for."""
    return Corpus("python-code", "PSF-2.0", f"standard library of Python {VERSION}", _documents)


def _documents(split: str) -> Iterator[str]:
    for name, path in modules().items():
        if split_of(hash64(name)) == split:
            with tokenize.open(path) as file:  # honours the coding line, which a few modules have
                yield file.read()
