"""Byte-level byte-pair encoding, to be read: the trainer and the encoder that `tokenizers` and tiktoken do fast.

Text is cut into words (a word keeps the space before it), a word is a sequence of bytes, and the pair of neighbours
that occurs most often becomes a new token; this is repeated until there are enough tokens. Encoding a word replays the
merges in the order in which they were learned. Sennrich, Haddow and Birch 2016; over bytes as in GPT-2 (Radford et al.
2019).

Equally frequent pairs: GPT-2's and most lecture versions take the pair whose bytes are greater; `tokenizers` takes the
pair with the smaller ids, that is, the one whose parts were made earlier. `train` does either, and tests hold it to
both.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel

from hornbook.text.byte_alphabet import BYTE_OF, unspell

Pair = tuple[bytes, bytes]
Parts = tuple[bytes, ...]

# The order of the 256 first ids: that of the characters which spell the bytes, as in tokenizers.
ALPHABET = [bytes([BYTE_OF[char]]) for char in sorted(BYTE_OF)]


def words(text: str) -> list[bytes]:
    """The text cut by GPT-2's rule; no merge crosses a cut."""
    return [unspell(word) or b"" for word, _ in ByteLevel(add_prefix_space=False).pre_tokenize_str(text)]


def train(texts: Iterable[str], merges: int, ties: str = "smaller ids") -> list[Pair]:
    """The first `merges` pairs to merge, in order; fewer when no pair occurs twice. `ties`: 'smaller ids' or 'greater
    bytes'."""
    counts = Counter(word for text in texts for word in words(text))
    splits = {word: tuple(bytes([byte]) for byte in word) for word in counts}
    pairs: Counter[Pair] = Counter()
    holders: defaultdict[Pair, set[bytes]] = defaultdict(
        set
    )  # pair -> words that hold it, the only ones that a merge changes
    for word in counts:
        _note(word, splits[word], counts[word], pairs, holders)
    ids = {token: id for id, token in enumerate(ALPHABET)}
    rank: Callable[[Pair], tuple] = lambda pair: (pairs[pair], pair)  # noqa: E731
    if ties == "smaller ids":
        rank = lambda pair: (pairs[pair], -ids[pair[0]], -ids[pair[1]])  # noqa: E731
    learned: list[Pair] = []
    while len(learned) < merges and pairs:
        best = max(pairs, key=rank)
        if pairs[best] < 2:
            break
        learned.append(best)
        ids.setdefault(best[0] + best[1], len(ids))
        for word in list(holders[best]):
            _note(word, splits[word], -counts[word], pairs, holders)
            splits[word] = merged(splits[word], best)
            _note(word, splits[word], counts[word], pairs, holders)
    return learned


def _note(word: bytes, parts: Parts, count: int, pairs: Counter[Pair], holders: dict[Pair, set[bytes]]) -> None:
    """Adds a word's pairs to the counts, or with a negative count takes them out."""
    for pair in pairwise(parts):
        pairs[pair] += count
        if count > 0:
            holders[pair].add(word)
        else:
            holders[pair].discard(word)
            if not pairs[pair]:
                del pairs[pair]


def merged(parts: Parts, pair: Pair) -> Parts:
    """The parts with every occurrence of the pair joined, from left to right."""
    result: list[bytes] = []
    for part in parts:
        # A part that has just been joined cannot be joined again: it is longer than the pair's first half.
        if result and (result[-1], part) == pair:
            result[-1] += part
        else:
            result.append(part)
    return tuple(result)


def encode(text: str, learned: list[Pair]) -> list[bytes]:
    """The tokens of a text, as bytes: in each word, the earliest learned pair is joined until none is left."""
    order = {pair: place for place, pair in enumerate(learned)}
    tokens: list[bytes] = []
    for word in words(text):
        parts = tuple(bytes([byte]) for byte in word)
        while len(parts) > 1 and (best := min(pairwise(parts), key=lambda pair: order.get(pair, len(order)))) in order:
            parts = merged(parts, best)
        tokens.extend(parts)
    return tokens
