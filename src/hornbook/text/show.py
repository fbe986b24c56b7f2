"""What a tokeniser does to a text, for people: where it cuts, how many bytes a token carries, what it never uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice
from typing import NamedTuple

from rich.text import Text

from hornbook.errors import visible
from hornbook.text.tokenizers import Tokenizer

COLOURS = ("black on bright_cyan", "black on bright_yellow", "black on bright_green", "black on bright_magenta")
AT_ONCE = 256  # documents encoded together


class Usage(NamedTuple):
    """What encoding some documents used of a tokeniser."""

    size: int
    """Bytes of UTF-8 in the documents."""
    tokens: int
    """Ids in all, without separators."""
    unknown: int
    """How many of them are the unknown token."""
    unused: list[int]
    """Ids that never occurred, special tokens left out."""
    restored: bool
    """Whether decoding gave every document back exactly; without it there are no bits per byte."""

    @property
    def bytes_per_token(self) -> float:
        """How much text one id carries."""
        return self.size / self.tokens if self.tokens else 0.0


def coloured(tokenizer: Tokenizer, text: str) -> Text:
    """The same as `separated`, with each token's piece in the next colour, for a terminal."""
    styled = zip(written(tokenizer, text), cycle(COLOURS), strict=False)
    return Text("|").join(Text(piece, style=colour) for piece, colour in styled)


def separated(tokenizer: Tokenizer, text: str) -> str:
    """The pieces with `|` between them; `|` itself is written \\|, line feeds \\n, tabs \\t."""
    return "|".join(written(tokenizer, text))


def written(tokenizer: Tokenizer, text: str) -> list[str]:
    """The pieces, with what could be taken for a cut, and what a terminal would obey, written out."""
    return [visible(piece.replace("|", "\\|")) for piece in tokenizer.pieces(text)]


def usage(tokenizer: Tokenizer, documents: Iterable[str]) -> Usage:
    """Encodes documents and counts."""
    size, tokens, unknown, restored, seen = 0, 0, 0, True, set[int]()
    for texts in _batches(documents):
        size += sum(len(text.encode()) for text in texts)
        rows = tokenizer.encode_batch(texts)
        for row, text in zip(rows, texts, strict=True):
            tokens += len(row)
            unknown += row.count(tokenizer.unk) if tokenizer.unk is not None else 0
            seen.update(row)
            restored = restored and tokenizer.decode(row) == text
    known = set(tokenizer.core.get_vocab().values())
    special = {id for id, token in tokenizer.core.get_added_tokens_decoder().items() if token.special}
    return Usage(size, tokens, unknown, sorted(known - seen - special), restored)


def _batches(documents: Iterable[str]) -> Iterator[Sequence[str]]:
    documents = iter(documents)
    while batch := list(islice(documents, AT_ONCE)):
        yield batch


def summary(tokenizer: Tokenizer, found: Usage, examples: int = 12) -> str:
    """A few lines on a tokeniser and what it did to a corpus."""
    unused = ", ".join(repr(tokenizer.piece(id)) for id in found.unused[:examples])
    lines = [
        f"{tokenizer.kind} tokeniser, {tokenizer.vocab:,} ids, sha256 {tokenizer.hash[:12]}, engine {tokenizer.engine}",
        f"{found.size:,} bytes in {found.tokens:,} tokens: {found.bytes_per_token:.3f} bytes per token",
        f"{len(found.unused):,} unused entries"
        + (f": {unused}{', ...' if len(found.unused) > examples else ''}" if unused else ""),
    ]
    if found.unknown:
        lines.append(f"{found.unknown:,} tokens ({found.unknown / found.tokens:.2%}) are unknown")
    if not found.restored:
        lines.append("it does not restore this text exactly: no bits per byte, no rank among others")
    return "\n".join(lines)
