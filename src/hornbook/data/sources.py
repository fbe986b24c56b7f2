"""What `--data` names: text by name or path, a corpus that was prepared, or several of these, each with its share."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Protocol

from hornbook.data.mixing import Mixed, shared
from hornbook.data.prepared import Prepared
from hornbook.data.remote import is_address
from hornbook.data.shards import Shard, open_split
from hornbook.errors import UserError
from hornbook.text.corpora import Corpus, open_corpus
from hornbook.text.paths import is_prepared
from hornbook.text.tokenizer_store import obtain_tokenizer
from hornbook.text.tokenizer_training import KINDS
from hornbook.text.tokenizers import Tokenizer, load_tokenizer

SHARE = re.compile(r"\d+(\.\d*)?|\.\d+")
MIXED = "a.txt:0.7,b/:0.3"


class Source(Protocol):
    """One corpus."""

    @property
    def name(self) -> str: ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The one that comes with it."""

    def fingerprint(self) -> str:
        """The hash of what is learnt from."""

    def shard(self, split: str, tokenizer: Tokenizer) -> Shard:
        """A split as tokens. UserError where it cannot be had."""


@dataclass(frozen=True)
class TextSource:
    """A corpus that is text."""

    corpus: Corpus
    tokenizer: Tokenizer | None = None

    @property
    def name(self) -> str:
        return self.corpus.name

    def fingerprint(self) -> str:
        return self.corpus.measure("train").fingerprint

    def shard(self, split: str, tokenizer: Tokenizer) -> Shard:
        return open_split(self.corpus, tokenizer, split)


def open_source(name: str, column: str | None = None) -> Source:
    """The corpus of a name, at a path or at an address. UserError where there is none."""
    plain = name.removeprefix("file://")
    if is_address(plain) or is_prepared(Path(plain).expanduser()):
        return Prepared(plain)
    return TextSource(open_corpus(name, column))


@dataclass(frozen=True)
class Data:
    """One corpus or several, as one setting names them."""

    sources: tuple[Source, ...]
    names: tuple[str, ...]
    """Short ones, all different."""
    weights: tuple[Fraction, ...] = field(default=())
    """Of each; none where each counts as much as it has tokens."""

    @property
    def name(self) -> str:
        """What a run's summary calls it."""
        return self.sources[0].name if len(self.sources) == 1 else " + ".join(source.name for source in self.sources)

    def fingerprint(self) -> str:
        """The hash of all that is learnt from, and of the shares."""
        if len(self.sources) == 1:
            return self.sources[0].fingerprint()
        told = [source.fingerprint() for source in self.sources] + [str(weight) for weight in self.weights]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    def tokenizer(self, wanted: str, vocab: int | None) -> Tokenizer:
        """The tokeniser that comes with the corpora, which must be what is wanted; else that one, trained on their
        texts where it is a kind."""
        own = [source for source in self.sources if source.tokenizer is not None]
        if not own:
            return obtain_tokenizer(
                wanted, joined([s.corpus for s in self.sources if isinstance(s, TextSource)]), vocab
            )
        first, tokenizer = own[0], own[0].tokenizer
        assert tokenizer is not None
        for other in own[1:]:
            if other.tokenizer is None or other.tokenizer.hash != tokenizer.hash:
                raise UserError(
                    f"{first.name} and {other.name} were prepared with different tokenisers: prepare one again, with "
                    "--tokenizer and the other's folder tokenizer"
                )
        if not agrees(tokenizer, wanted, vocab):
            asked = f"--tokenizer {wanted}" + ("" if vocab is None else f" --vocab {vocab}")
            raise UserError(
                f"{first.name} was prepared with a tokeniser of {tokenizer.vocab:,} ids ({tokenizer.kind}), which "
                f"{asked} is not: leave that out, or prepare the text again"
            )
        return tokenizer

    def shards(self, tokenizer: Tokenizer) -> dict[str, Shard] | dict[str, Mixed]:
        """The splits to train on and to validate on."""
        found = {split: [s.shard(split, tokenizer) for s in self.sources] for split in ("train", "validation")}
        if len(self.sources) == 1:
            return {split: shards[0] for split, shards in found.items()}
        weights = shared(self.weights or [shard.length for shard in found["train"]])
        return {split: Mixed(self.names, tuple(shards), weights) for split, shards in found.items()}


def open_data(setting: str, column: str | None = None) -> Data:
    """What a setting names. Raises UserError, before any text is read, for what is neither a corpus nor a mixture."""
    parts = named(setting)
    weights = tuple(weight for _, weight in parts if weight is not None)
    names: list[str] = []
    for name, _ in parts:
        short = short_name(name)
        again = (f"{short}-{number}" for number in range(2, len(parts) + 2))
        names.append(next(one for one in (short, *again) if one not in names))
    if weights:
        shared(weights)
    return Data(tuple(open_source(name, column) for name, _ in parts), tuple(names), weights)


def named(setting: str) -> list[tuple[str, Fraction | None]]:
    """(corpus, its share) for each that a setting names; None for the share of the only one, and where none is given.

    UserError for what is no such list. A path that exists is one corpus, whatever it is called.
    """
    if "," not in setting or os.path.exists(os.path.expanduser(setting)):
        return [(setting, None)]
    found = [one_of(part.strip()) for part in setting.split(",")]
    names, given = [name for name, _ in found], [weight is not None for _, weight in found]
    if not all(names) or any(given) != all(given):
        raise UserError(f"--data {setting}: corpora are mixed as in {MIXED}, a share for each or for none")
    if "-" in names:
        raise UserError(f"--data {setting}: standard input cannot be mixed with others: put it into a file")
    if double := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--data {setting}: {double} is named twice: give it one share")
    return found


def one_of(part: str) -> tuple[str, Fraction | None]:
    """A corpus and its share, if one is given."""
    name, _, share = part.rpartition(":")
    if name and SHARE.fullmatch(share) and not os.path.exists(os.path.expanduser(part)):
        return name, Fraction(share)
    return part, None


def short_name(name: str) -> str:
    """A corpus in a word, for names of folders and figures."""
    return Path(name.rstrip("/")).stem or name


def data_name(setting: str) -> str:
    """What a setting names, in a word: for names of folders. UserError as `named` raises."""
    return "stdin" if setting == "-" else "-".join(short_name(name) for name, _ in named(setting))


def agrees(tokenizer: Tokenizer, wanted: str, vocab: int | None) -> bool:
    """Whether a tokeniser is what settings ask for, or they ask for nothing."""
    if vocab not in (None, tokenizer.vocab):
        return False
    if wanted in KINDS:
        return wanted in ("bpe", tokenizer.kind)  # bpe is also what nobody has asked for
    return load_tokenizer(wanted).hash == tokenizer.hash


def joined(corpora: Sequence[Corpus]) -> Corpus:
    """One corpus of the documents of several, one after the other."""
    if len(corpora) == 1:
        return corpora[0]
    return Corpus(
        " + ".join(corpus.name for corpus in corpora),
        "",
        "",
        lambda split: chain.from_iterable(corpus.documents(split) for corpus in corpora),
    )
