"""Text and tokens: `prepare` and `tokenize`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from hornbook.config.checks import above_zero, byte_count, require_words
from hornbook.errors import UserError


@dataclass(frozen=True)
class Prepare:
    """Text to tokens on disk, once, by many processes: hornbook prepare fineweb-edu --tokenizer gpt2/ --out corpus/"""

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """A corpus by name, or a file, a folder, or - for standard input."""
    out: str
    """The folder, or address such as s3://bucket/corpus, that `train --data` then takes. The same command again carries
    on where it stopped."""
    tokenizer: str = "bpe"
    """A folder or file to load one from; or bpe, word, char, bytes: trained on the text first."""
    vocab: int | None = None
    """Vocabulary size of a tokeniser trained here; default 4,096 for bpe, otherwise all that occur."""
    column: str = "text"
    """The column that holds the text, in .jsonl, .csv and .parquet files."""
    engine: Literal["processes", "ray"] = "processes"
    """Processes of this machine, or Ray: the cluster that RAY_ADDRESS names or that runs here, else one of its own."""
    workers: int | None = None
    """Parts that are prepared at once; default one a core, or all of the cluster's."""
    part_size: str = "64MB"
    """Text in a file of tokens. Of so much, a few are in memory at once."""
    dedup: bool = False
    """Leave out every document that came before, byte for byte; what is in test or validation too goes from train."""

    def __post_init__(self) -> None:
        require_words(self)
        if not self.out:
            raise UserError("prepare needs a place to write to, as in --out corpus/")
        above_zero(self, "workers", "vocab")
        if self.part_bytes > 2**40:
            raise UserError(f"--part-size {self.part_size}: a part is held in memory, 64MB say; at most 1TiB")

    @property
    def part_bytes(self) -> int:
        return byte_count("--part-size", self.part_size)


@dataclass(frozen=True)
class Tokenize:
    """Train a tokeniser, or show how a text is cut: hornbook tokenize wikitext-2 --out tok --vocab 8192"""

    data: Annotated[Positional[str], arg(metavar="DATA")] = "python-docs"
    """The corpus to train on: by name, or a file, a folder, or - for standard input."""
    out: str | None = None
    """Folder to write tokenizer.json into."""
    load: str | None = None
    """Use the tokeniser in this folder or file (or run) instead of training one."""
    text: str | None = None
    """Show how this text is cut: a bar between tokens, on a terminal colours too."""
    kind: Literal["bpe", "word", "char", "bytes"] = "bpe"
    vocab: int | None = None
    """Vocabulary size; default 4,096 for bpe, otherwise all that occur."""
    column: str = "text"
    nfd: bool = False
    """Word kind: decompose characters (NFD)."""
    lower: bool = False
    """Word kind: lower case."""
    strip_accents: bool = False
    """Word kind: drop accents (implies --nfd)."""
    digits: bool = False
    """Word kind: every digit is a word."""
    split: Literal["spaces", "whitespace", "punctuation"] = "spaces"
    """Word kind: where words end. With 'spaces' each keeps the space before it, which restores the text."""
    template: str | None = None
    """Word kind: what stands around a text, as in '[CLS] $A [SEP]'."""

    def __post_init__(self) -> None:
        require_words(self)

    def flags(self) -> dict[str, Any]:
        """The options that were given, for a tokeniser of words."""
        names = ("nfd", "lower", "strip_accents", "digits", "template")
        given = {name: value for name in names if (value := getattr(self, name))}
        return given if self.split == "spaces" else given | {"split": self.split}
