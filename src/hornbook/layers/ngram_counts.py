"""From a stream of tokens to the tables of an n-gram model: counting, and turning counts into probabilities.

The n-grams of length k are one level of a trie, held in arrays sorted by key = prefix * (V + 1) + word: `prefix` is the
row of the first k-1 tokens in the level below, and V + 1 rather than V because a separator that has been read is a word
of its own, `start` = V (KenLM's <s>), while a separator that is predicted keeps its id (KenLM's </s>). Level 1 has one
row for each of these V + 1 words, so its rows are token ids. No n-gram reaches across a separator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""For orders whose discounts cannot be estimated: what lmplz takes for --discount_fallback."""


class Level(NamedTuple):
    """The N distinct n-grams of one length."""

    keys: Ints
    """(N,) sorted."""
    counts: Ints
    """(N,) how often each occurs."""
    suffixes: Ints
    """(N,) the row, in the level below, of the n-gram without its first token."""


class Table(NamedTuple):
    """What a model stores of a level."""

    keys: Ints
    log_probs: Floats
    """(N,) natural logarithm of p(last token | the tokens before it)."""
    backoffs: Floats
    """(N,) natural logarithm of the weight of shorter contexts after these tokens; 0 where nothing follows them."""


def count_ngrams(tokens: Ints, order: int, vocab: int, separators: Sequence[int] = ()) -> list[Level]:
    """Count all n-grams of 1 to `order` tokens in tokens (N,), ids below `vocab`; one Level a length.

    A stream that does not open with a separator is counted as if it did.
    """
    if not np.isin(tokens[:1], separators).any():
        tokens = np.concatenate([[vocab], tokens])
    opens = np.isin(tokens, [vocab, *separators])[:-1]  # the token before each predicted one begins a document
    words = tokens[1:]
    found = words  # the row of the n-gram that ends in each predicted token, one level below; -1 where there is none
    prefixes = np.where(opens, vocab, tokens[:-1])
    levels = [Level(np.arange(vocab + 1), np.bincount(words, minlength=vocab + 1), np.zeros(vocab + 1, np.int64))]
    for _ in range(1, order):
        whole = np.flatnonzero(prefixes >= 0)
        keys, first, rows, counts = distinct(prefixes[whole] * (vocab + 1) + words[whole])
        levels.append(Level(keys, counts, found[whole[first]]))
        found = np.full(len(words), -1)
        found[whole] = rows
        prefixes = np.where(opens, -1, np.roll(found, 1))
    return levels


def distinct(values: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Sorted distinct values, a place of each, the row of every value among them, and counts.

    `np.unique` with all its options, but without its stable sort, which takes most of the time.
    """
    order = np.argsort(values)
    ranked = values[order]
    new = np.ones(len(values), bool)
    new[1:] = ranked[1:] != ranked[:-1]
    starts = np.flatnonzero(new)
    rows = np.empty(len(values), np.int64)
    rows[order] = np.cumsum(new) - 1
    return ranked[starts], order[starts], rows, np.diff(starts, append=len(values))


def estimate(levels: list[Level], vocab: int, smoothing: str, k: float) -> list[Table]:
    """Probabilities from counts: 'mle', 'add-k' or 'kneser-ney'. Each sums to 1 over the V ids in every context."""
    if smoothing == "kneser-ney":
        return kneser_ney(levels, vocab)
    return add_k(levels, vocab, k) if smoothing == "add-k" else maximum_likelihood(levels, vocab)


def maximum_likelihood(levels: list[Level], vocab: int) -> list[Table]:
    """p(w | h) = c(h w) / c(h); a context that was never followed by anything leaves it to the shorter one."""
    tables: list[Table] = []
    for level in levels:
        parents, totals = followers(level, level.counts, tables, vocab)
        if tables:
            tables[-1] = tables[-1]._replace(backoffs=np.where(totals > 0, -np.inf, 0.0))
        tables.append(table(level, level.counts / totals[parents]))
    return tables


def add_k(levels: list[Level], vocab: int, k: float) -> list[Table]:
    """p(w | h) = (c(h w) + k) / (c(h) + k V) for the whole context h (Lidstone; Laplace where k = 1).

    It never asks a shorter context. As weights: what a context leaves to words that it has not seen, spread evenly; so
    level 1 is uniform, unless it is the model.
    """
    tables: list[Table] = []
    for level in levels:
        parents, totals = followers(level, level.counts, tables, vocab)
        if tables:
            tables[-1] = tables[-1]._replace(backoffs=np.log(k * vocab / (totals + k * vocab)))
        probs = (level.counts + k) / (totals + k * vocab)[parents]
        tables.append(table(level, probs if tables or len(levels) == 1 else np.full(vocab + 1, 1 / vocab)))
    return tables


def kneser_ney(levels: list[Level], vocab: int) -> list[Table]:
    """Interpolated modified Kneser-Ney (Chen and Goodman 1998, section 4.1.6), as lmplz has it (Heafield et al. 2013).

    p(w | h) = (a(h w) - D(a(h w))) / a(h) + gamma(h) p(w | h'), with h' = h without its first token, a(h) the sum of
    a(h w) over w, and gamma(h) = sum over w of D(a(h w)) / a(h); below unigrams lies the uniform 1 / V. All V ids share
    in it, padding too if the vocabulary has it, as they do in a neural model's softmax; `start` is never predicted.
    """
    tables: list[Table] = []
    lower = np.array([1 / vocab])
    for number, level in enumerate(levels):
        counts = adjusted(level, levels[number + 1] if number + 1 < len(levels) else None)
        discounts = np.concatenate([[0.0], estimate_discounts(counts)])[np.minimum(counts, 3)]
        parents, totals = followers(level, counts, tables, vocab)
        seen = np.maximum(totals, 1)
        gamma = np.bincount(parents, discounts, len(totals)) / seen
        if tables:
            tables[-1] = tables[-1]._replace(backoffs=np.log(gamma, where=totals > 0, out=np.zeros(len(totals))))
        lower = (counts - discounts) / seen[parents] + gamma[parents] * lower[level.suffixes]
        tables.append(table(level, lower))
    return tables


def adjusted(level: Level, above: Level | None) -> Ints:
    """What Kneser-Ney counts: how many different tokens stand before an n-gram, below the highest order.

    Nothing stands before an n-gram that opens a document, so there, and in the highest order, it is the plain count.
    """
    if above is None:
        return level.counts
    before = np.bincount(above.suffixes, minlength=len(level.keys))
    return np.where(before > 0, before, level.counts)


def estimate_discounts(counts: Ints) -> tuple[float, float, float]:
    """D for counts of 1, of 2, and of 3 or more, from the counts of counts n1 to n4 (Chen and Goodman 1998, eq. 26).

    FALLBACK_DISCOUNTS where n1, n2 or n3 is nought or a D would fall out of (0, count]: in tiny texts, and for bytes.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6)
    if not n[1:4].all():
        return FALLBACK_DISCOUNTS
    y = n[1] / (n[1] + 2 * n[2])
    discounts = [float(c - (c + 1) * y * n[c + 1] / n[c]) for c in (1, 2, 3)]
    usable = all(0 < discount <= c for c, discount in zip((1, 2, 3), discounts, strict=True))
    return (discounts[0], discounts[1], discounts[2]) if usable else FALLBACK_DISCOUNTS


def followers(level: Level, counts: Ints, below: list[Table], vocab: int) -> tuple[Ints, Ints]:
    """The context row of every n-gram of a level, and for every context the sum of the counts that follow it."""
    if not below:
        return np.zeros(len(level.keys), np.int64), counts.sum(keepdims=True)
    parents = level.keys // (vocab + 1)
    totals = np.bincount(parents, counts, len(below[-1].keys)).astype(np.int64)
    return parents, totals


def table(level: Level, probs: Floats) -> Table:
    logs = np.log(probs, where=probs > 0, out=np.full(len(probs), -np.inf))
    return Table(level.keys, logs, np.zeros(len(probs)))
