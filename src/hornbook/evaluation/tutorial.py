"""The bigram of a widely read tutorial, measured the tutorial's way and the honest way.

Its protocol: words are what white space separates, lower-cased; every line stands alone; p(w | v) = (c(v w) + 1) /
(c(v) + V) over the V words of the training text (Laplace); a pair with a word outside them gets 1e-8. It divides by
len(words) - 1 summed over all lines, which for an empty line is minus one.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hornbook.errors import UserError
from hornbook.evaluation.score import exponential
from hornbook.layers.ngram_counts import Ints, count_ngrams

UNKNOWN = 1e-8
"""What the tutorial gives a pair with an unknown word."""
BREAK = 0
"""The id between lines; words count from 1."""


class Pair(NamedTuple):
    """Two neighbouring words."""

    first: str
    second: str
    log_prob: float
    """Natural logarithm of p(second | first)."""
    known: bool
    """Whether the training text has both words."""


@dataclass(frozen=True)
class PairCounts:
    """The training text's words and how often each follows each, as far as it does."""

    ids: dict[str, int]
    keys: Ints
    """Sorted: first * (V + 2) + second, of the pairs that occur."""
    counts: Ints
    totals: Ints
    """By first word: how many words follow it on its line."""

    def probabilities(self, first: Ints, second: Ints) -> NDArray[np.float64]:
        """p(second | first) of ids (N,), float64; an id of -1 is an unknown word."""
        vocab = len(self.ids)
        wanted = first * (vocab + 2) + second
        places = np.searchsorted(self.keys, wanted).clip(max=max(len(self.keys) - 1, 0))
        counts = np.zeros(len(wanted), np.int64)
        if len(self.keys):
            counts = np.where(self.keys[places] == wanted, self.counts[places], 0)
        return np.where((first < 0) | (second < 0), UNKNOWN, (counts + 1) / (self.totals[first] + vocab))


@dataclass(frozen=True)
class TutorialBigram:
    """The tutorial's model, and its score on a validation text."""

    counts: PairCounts
    nats: float
    """-log p summed over all pairs of the validation text."""
    pairs: int
    """Neighbouring words on one line of the validation text."""
    unknown_pairs: int
    """Those of them with a word that the training text does not have."""
    empty_lines: int
    """Lines without a word in the validation text."""

    @property
    def vocab(self) -> int:
        """Different words in the training text."""
        return len(self.counts.ids)

    @property
    def tutorial_perplexity(self) -> float:
        """exp(nats / tokens) as the tutorial counts tokens: an empty line takes one away."""
        tokens = self.pairs - self.empty_lines
        return exponential(self.nats / tokens) if tokens else math.inf

    @property
    def honest_perplexity(self) -> float:
        """exp(nats / pairs): the same probabilities divided by the number of words that were predicted."""
        return exponential(self.nats / self.pairs)

    def sentence_pairs(self, text: str) -> list[Pair]:
        """Each pair of neighbouring words in `text`, with its log-probability."""
        words = text.lower().split()
        ids = np.array([self.counts.ids.get(word, -1) for word in words], np.int64)
        probs = self.counts.probabilities(ids[:-1], ids[1:])
        known = (ids[:-1] >= 0) & (ids[1:] >= 0)
        rows = zip(words[:-1], words[1:], probs.tolist(), known.tolist(), strict=True)
        return [Pair(first, second, math.log(prob), seen) for first, second, prob, seen in rows]

    def sentence_log_prob(self, text: str) -> float:
        """Natural logarithm of the tutorial's probability of a sentence: its first word is taken for granted.

        A sum of logarithms, where the tutorial multiplies in float32: a dozen words there make 0.
        """
        return math.fsum(pair.log_prob for pair in self.sentence_pairs(text))


def tutorial_bigram(train: Iterable[str], validation: Iterable[str]) -> TutorialBigram:
    """Count the lines of `train` and score those of `validation`.

    Raises UserError when either has no two words on one line.
    """
    counts = count_pairs(train)
    ids, pairs, empty = array("q", [BREAK]), 0, 0
    for line in validation:
        words = line.lower().split()
        ids.extend([*(counts.ids.get(word, -1) for word in words), BREAK])
        pairs += max(len(words) - 1, 0)
        empty += not words
    if not pairs:
        raise UserError("the validation text has no two words on one line: there is nothing to measure")
    stream = np.array(ids)
    inside = (stream[:-1] != BREAK) & (stream[1:] != BREAK)
    first, second = stream[:-1][inside], stream[1:][inside]
    nats = -math.fsum(map(math.log, counts.probabilities(first, second).tolist()))
    return TutorialBigram(counts, nats, pairs, int(((first < 0) | (second < 0)).sum()), empty)


def count_pairs(lines: Iterable[str]) -> PairCounts:
    """Count words and neighbours, line by line."""
    ids: dict[str, int] = {}
    stream = array("q", [BREAK])
    for line in lines:
        stream.extend([*(ids.setdefault(word, len(ids) + 1) for word in line.lower().split()), BREAK])
    start = len(ids) + 1  # the counter's word for the beginning of a line
    level = count_ngrams(np.array(stream), 2, start, [BREAK])[1]
    first, second = np.divmod(level.keys, start + 1)
    inside = (first != start) & (second != BREAK)
    if not inside.any():
        raise UserError("the training text has no two words on one line: there is nothing to count")
    totals = np.bincount(first[inside], level.counts[inside], start).astype(np.int64)
    return PairCounts(ids, level.keys[inside], level.counts[inside], totals)


def explain(result: TutorialBigram) -> str:
    """In plain words: why the tutorial's number is not the honest one, and what neither of them is."""
    share = result.unknown_pairs / result.pairs
    return (
        f"The tutorial's perplexity is {result.tutorial_perplexity:,.2f}; counted honestly, the same model has "
        f"{result.honest_perplexity:,.2f}.\n"
        f"A line of n words has n - 1 pairs. The tutorial adds n - 1 for every line, so each of the "
        f"{result.empty_lines:,} empty lines counts as minus one word: it divides by "
        f"{result.pairs - result.empty_lines:,} instead of {result.pairs:,}. The sum of logarithms, "
        f"{result.nats:,.1f} nats, is the same.\n"
        f"Add-one spreads the probability over the {result.vocab:,} words of the training text, where it already sums "
        f"to 1. Pairs with any other word get another {UNKNOWN:g} on top: here {result.unknown_pairs:,} of "
        f"{result.pairs:,} ({share:.1%}). "
        + (
            "Where there are such pairs, the number is no perplexity, strictly.\n"
            if share
            else "Here it changes none.\n"
        )
        + "Neither number can be set beside one in other tokens: no line's first word and no line's end is predicted, "
        "and words are lower-cased. Bits per byte compare; these do not."
    )
