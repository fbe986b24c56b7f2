"""Prefix reuse: what the model has read before need not be read again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from hornbook.layers.model import Cache

WORTH = 16
"""Fewer tokens in common are read again, unless they are all that is wanted."""


class Prefixes:
    """Caches of texts that were read, the latest ones that fit into `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kept: list[tuple[list[int], Cache]] = []

    def keep(self, tokens: Sequence[int], cache: Cache, row: int) -> None:
        """Remember one row of a cache, which holds these tokens."""
        if self.limit <= 0:
            return
        new = cache.copy(row)
        self.kept = [(old, held) for old, held in self.kept if common(old, tokens) < len(old)] + [(list(tokens), new)]
        while self.kept and sum(held.bytes for _, held in self.kept) > self.limit:
            self.kept.pop(0)

    def find(
        self, wanted: Sequence[int], running: Iterable[tuple[Sequence[int], Any, int]]
    ) -> tuple[Cache | None, int]:
        """A new cache of one row that has read as much of `wanted` as anybody has, and how much that is.

        `running` are texts beside the kept ones: tokens, and the cache and row that hold them.
        """
        rows = [*running, *((tokens, cache, 0) for tokens, cache in self.kept)]
        lengths = [common(tokens, wanted) for tokens, _, _ in rows]
        length = max(lengths, default=0)
        if not length or (length < WORTH and length < len(wanted)):
            return None, 0
        _, cache, row = rows[lengths.index(length)]
        found = cache.copy(row)
        found.rewind(torch.full_like(found.lengths, length))
        return found, length


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens they have in common from the start on."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
