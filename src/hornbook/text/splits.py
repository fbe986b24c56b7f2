"""Which document belongs to train, validation or test: a function of the document alone, so that it never changes.

A document's hash decides: 90 % train, 5 % validation, 5 % test. Equal documents fall into the same split, and a
document keeps its place when others are added. Only when a corpus is so small that a split would stay empty are its
documents ranked by hash instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import groupby

SPLITS = ("train", "validation", "test")
ENOUGH = 4096  # so many distinct documents leave no split empty: 0.95 ** 4096 is 1e-91


def hash64(text: str) -> int:
    """The first 64 bits of the text's SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split_of(key: int) -> str:
    """The split of a 64-bit hash, by thresholds at 90 % and 95 %."""
    share = key / 2**64
    return "train" if share < 0.90 else "validation" if share < 0.95 else "test"


def repaired(keys: Iterable[int]) -> dict[int, str]:
    """Hash -> split for a corpus too small for the thresholds; empty where the thresholds do.

    Guarantees a train and a validation document from two distinct documents on, and a test document from three on.
    """
    distinct: set[int] = set()
    for key in keys:
        distinct.add(key)
        if len(distinct) >= ENOUGH:
            return {}
    ranked = sorted(distinct)
    if {split_of(key) for key in ranked} == set(SPLITS):
        return {}
    few = max(1, len(ranked) // 20)
    tests = few if len(ranked) >= 3 else 0
    validations = few if len(ranked) >= 2 else 0
    names = ["train"] * (len(ranked) - validations - tests) + ["validation"] * validations + ["test"] * tests
    return dict(zip(ranked, names, strict=True))


def blocks(text: str) -> Iterator[str]:
    """The text cut at paragraph ends into about 100 blocks, or more of 4,000 characters; joined, they are the text.

    A block reaches on to the next paragraph's, line's or word's end, to three times its size at most.
    """
    size = min(4000, max(200, len(text) // 100))
    if len(text) < 3 * size:
        size = max(1, len(text) // 3)
    start = 0
    while start < len(text):
        end = start + size
        window = text[end : end + 2 * size]
        for separator in ("\n\n", "\n", " "):
            if (at := window.find(separator)) >= 0:
                end += at + len(separator)
                break
        yield text[start:end]
        start = end


def cut_one_document(text: str) -> dict[str, list[str]]:
    """Split -> documents for a text that is a single document: neighbouring blocks of one split stay joined."""
    pieces = list(blocks(text))
    keys = [hash64(piece) for piece in pieces]
    names = repaired(keys)
    result: dict[str, list[str]] = {}
    for split, group in groupby(
        zip(keys, pieces, strict=True), key=lambda pair: names.get(pair[0]) or split_of(pair[0])
    ):
        result.setdefault(split, []).append("".join(piece for _, piece in group))
    return result
