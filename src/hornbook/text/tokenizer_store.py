"""The tokeniser that a command names: loaded from a path, or trained on the corpus and kept for the next time."""

from __future__ import annotations

from pathlib import Path

from hornbook.errors import UserError
from hornbook.text.corpora import Corpus
from hornbook.text.home import home
from hornbook.text.tokenizer_training import KINDS, train_tokenizer
from hornbook.text.tokenizers import Tokenizer, load_tokenizer


def obtain_tokenizer(name: str, corpus: Corpus, vocab: int | None) -> Tokenizer:
    """Load the tokeniser at a path, or have one of a kind, trained on the corpus's training split."""
    if name not in KINDS:
        if not Path(name).expanduser().exists():
            raise UserError(f"no tokeniser '{name}': give a folder, a tokenizer.json, or one of {', '.join(KINDS)}")
        return load_tokenizer(name)
    folder = home() / "tokenizers" / f"{corpus.measure('train').fingerprint[:16]}-{name}-{vocab}"
    if not (folder / "tokenizer.json").exists():
        train_tokenizer(name, corpus.documents("train"), vocab).save(folder)
    return load_tokenizer(folder)
