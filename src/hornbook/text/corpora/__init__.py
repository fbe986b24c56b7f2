"""Where text comes from. Every file in this folder is a corpus, found by its name: python_docs.py is `python-docs`.

A corpus file has one function, `corpus() -> Corpus`. Whatever is no corpus's name is taken as a path.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path

from hornbook.errors import unknown
from hornbook.text.corpus import Corpus
from hornbook.text.paths import path_corpus

__all__ = ["Corpus", "corpus_names", "open_corpus"]


def corpus_names() -> list[str]:
    """The names of all corpora that Hornbook knows."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def open_corpus(name_or_path: str, column: str | None = None) -> Corpus:
    """The corpus of that name, or the text at that path (`-` is standard input).

    An existing path wins over a name. `column` is the text column of .jsonl, .csv and .parquet files ('text' unless
    given). Nothing is read or downloaded before the first document is asked for. Raises UserError for what is neither.
    """
    if name_or_path == "-" or Path(name_or_path).expanduser().exists():
        return path_corpus(name_or_path, column or "text")
    if name_or_path not in corpus_names():
        raise unknown("corpus", name_or_path, corpus_names(), hint=f"No file or folder is at '{name_or_path}' either.")
    module = import_module(f"{__name__}.{name_or_path.replace('-', '_')}")
    return module.corpus()
