"""The English that every Python carries: the standard library's docstrings and the language reference's topics.

The default corpus: it needs no download. It is about 2.5 MB, a little different in each version of Python, so that
figures measured on it state the version. One document a module, one a topic; split by name, so that no document is in
two splits.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib import import_module

from hornbook.text.corpus import Corpus
from hornbook.text.splits import hash64, split_of
from hornbook.text.stdlib import VERSION, modules

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def corpus() -> Corpus:
    """The corpus; nothing is read before its first document is asked for."""
    return Corpus(
        "python-docs", "PSF-2.0", f"docstrings and topics of Python {VERSION}", lambda split: _documents()[split]
    )


@cache
def _documents() -> dict[str, list[str]]:
    result: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    seen: set[str] = set()
    for name, path in modules().items():
        fresh = [text for text in _docstrings(path.read_bytes()) if text not in seen]
        seen.update(fresh)
        if fresh:
            result[split_of(hash64(name))].append("\n\n".join(fresh) + "\n")
    topics = {text: name for name, text in sorted(import_module("pydoc_data.topics").topics.items(), reverse=True)}
    for text, name in reversed(topics.items()):  # equal texts once, under the first of their names
        result[split_of(hash64(f"topic {name}"))].append(text)
    return result


def _docstrings(source: bytes) -> Iterator[str]:
    """Every docstring in order of the file, each once."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, DOCUMENTED)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    texts = (ast.get_docstring(node) for node in nodes)
    yield from dict.fromkeys(text.strip() for text in texts if text and text.strip())
