"""Several corpora in one run, each with its share of the rows. Batch k is a pure function of (seed, k) here too.

Of the first n rows floor(n W_c) - floor(n W_(c-1)) belong to corpus c, W being the shares added up: exact within one
row for every n, in whole numbers. That is kept at the ends of blocks of rows; within a block, the rows of all corpora
come in a random order that the block draws. So which corpus a row is from, and the how-manieth of that corpus it is,
follow from its number alone; each corpus then goes through its own text in its own order, every token once an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from hornbook.data.batches import Batch, Batches
from hornbook.data.permutation import permute
from hornbook.data.shards import Shard
from hornbook.errors import UserError

LEAST = Fraction(1, 10_000)
"""Of all rows: the smallest share that a corpus may have."""
BLOCK = 64
"""Rows of a block, if the smallest share comes to a row of them."""


@dataclass(frozen=True)
class Mixed:
    """One split of several corpora."""

    names: tuple[str, ...]
    shards: tuple[Shard, ...]
    weights: tuple[Fraction, ...]
    """Of each corpus among the rows; they add up to 1."""

    @property
    def length(self) -> int:
        """Tokens of all together."""
        return sum(shard.length for shard in self.shards)


def shared(weights: Sequence[Fraction | int]) -> tuple[Fraction, ...]:
    """The same proportions, adding up to 1. UserError for a share that is nothing, or next to it."""
    total = sum(weights, Fraction(0))
    if any(weight <= 0 for weight in weights) or any(weight < LEAST * total for weight in weights):
        raise UserError(
            f"shares of {', '.join(f'{float(weight):g}' for weight in weights)}: each must be above 0, and at least "
            f"one of {LEAST.denominator:,} rows"
        )
    return tuple(Fraction(weight) / total for weight in weights)


class Order:
    """Which corpus each row is from, and the how-manieth of its rows it is."""

    def __init__(self, weights: Sequence[Fraction], seed: int) -> None:
        """`weights` add up to 1."""
        self.whole = math.lcm(*(weight.denominator for weight in weights))
        shares = [int(weight * self.whole) for weight in weights]
        self.sums = [sum(shares[:c]) for c in range(len(shares) + 1)]
        self.block = max(BLOCK, -(-self.whole // min(shares)))  # below that a block might owe a corpus a row
        self.seed = seed
        self.drawn = lru_cache(4)(self.draw)

    def counts(self, rows: int) -> NDArray[np.int64]:
        """How many of the first `rows`, whole blocks, are from each corpus."""
        steps = np.array([rows * part // self.whole for part in self.sums], np.int64)
        return steps[1:] - steps[:-1]

    def draw(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(corpus, number among its rows) of each row of a block."""
        before, after = self.counts(block * self.block), self.counts((block + 1) * self.block)
        ends = np.cumsum(after - before)
        order = permute(np.arange(self.block, dtype=np.int64), self.block, (self.seed, block, 2))
        corpora = np.searchsorted(ends, order, side="right")
        numbers = np.empty(self.block, np.int64)
        for corpus, first in enumerate(before):
            rows = np.flatnonzero(corpora == corpus)
            numbers[rows] = first + np.arange(len(rows))
        return corpora, numbers

    def rows(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(corpus, number among its rows) of each of these rows."""
        blocks, places = np.divmod(numbers, self.block)
        corpora, found = np.empty_like(numbers), np.empty_like(numbers)
        for block in np.unique(blocks).tolist():
            mine = blocks == block
            drawn = self.drawn(block)
            corpora[mine], found[mine] = drawn[0][places[mine]], drawn[1][places[mine]]
        return corpora, found


class MixedBatches:
    """Rows of `context` tokens, from all corpora by their shares. An epoch ends where the corpus that runs out first
    has been read once: no token is read twice in it."""

    def __init__(self, mixed: Mixed, batch: int, context: int, seed: int, apart: bool = False) -> None:
        """UserError for a corpus shorter than a row."""
        self.batch, self.context = batch, context
        self.order = Order(mixed.weights, seed)
        self.samplers = []
        for place, (name, shard) in enumerate(zip(mixed.names, mixed.shards, strict=True)):
            own = int(np.random.SeedSequence((seed, place)).generate_state(1, np.uint64)[0])  # orders of their own
            try:
                self.samplers.append(Batches(shard, batch, context, own, apart))
            except UserError as error:
                raise UserError(f"{name}: {error}") from None
        pairs = list(zip(self.samplers, mixed.weights, strict=True))
        self.per_epoch = float(min(sampler.windows / weight for sampler, weight in pairs)) / batch
        self.read_by_batch = batch * float(sum(weight**2 / sampler.windows for sampler, weight in pairs))
        """Of each corpus by its share, for its share counts in what is learnt."""

    def get(self, k: int) -> Batch:
        """Batch number k = 0, 1, ..."""
        corpora, numbers = self.numbers(k)
        parts = [(corpora == c, sampler) for c, sampler in enumerate(self.samplers)]
        found = [(mine, sampler.rows(numbers[mine])) for mine, sampler in parts if mine.any()]
        return Batch(*(self.together([(mine, vars(part)[name]) for mine, part in found]) for name in FIELDS))  # type: ignore[arg-type]

    def together(self, parts: list[tuple[NDArray[np.bool_], torch.Tensor | None]]) -> torch.Tensor | None:
        """One tensor of a batch, from those of the corpora's rows."""
        first = parts[0][1]
        if first is None:
            return None
        whole = first.new_empty((self.batch, *first.shape[1:]))
        for mine, part in parts:
            assert part is not None
            whole[torch.from_numpy(mine)] = part
        return whole

    def numbers(self, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(corpus, number among its rows) of each row of a batch."""
        return self.order.rows(k * self.batch + np.arange(self.batch, dtype=np.int64))

    @cached_property
    def far(self) -> bool:
        """Whether some of it lies elsewhere, so that `foresee` is worth it."""
        return any(sampler.far for sampler in self.samplers)

    def foresee(self, k: int) -> None:
        """Begin to fetch what batch number k will read."""
        corpora, numbers = self.numbers(k)
        for c, sampler in enumerate(self.samplers):
            if sampler.far:
                sampler.want(numbers[corpora == c])

    def stop(self) -> None:
        """Give up what is being fetched."""
        for sampler in self.samplers:
            sampler.stop()


FIELDS = ("tokens", "targets", "segments")


def batches(text: Shard | Mixed, batch: int, context: int, seed: int, apart: bool = False) -> Batches | MixedBatches:
    """The sampler of a text, or of several."""
    kind = MixedBatches if isinstance(text, Mixed) else Batches
    return kind(text, batch, context, seed, apart)  # type: ignore[arg-type]
