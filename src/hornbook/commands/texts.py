"""`hornbook prepare` and `tokenize`."""

from __future__ import annotations

import sys

from hornbook.commands.printing import console, print_table
from hornbook.config import Prepare, Tokenize


def prepare(settings: Prepare) -> None:
    """`hornbook prepare`."""
    from hornbook.data.preparing import prepare_corpus
    from hornbook.text.space import gigabytes

    try:
        found = prepare_corpus(settings)
    except KeyboardInterrupt:
        print(
            f"hornbook: stopped; what is whole is in {settings.out}, and the same command carries on from there",
            file=sys.stderr,
        )
        sys.exit(130)
    head = ["split", "documents", "text", "tokens", "parts", *(["duplicates left out"] if settings.dedup else [])]
    rows = [head]
    for split in dict.fromkeys([*found.parts, *found.duplicates]):
        parts = found.parts.get(split, [])
        documents, size, tokens = (sum(part[key] for part in parts) for key in ("documents", "text_bytes", "tokens"))
        tokens -= max(0, len(parts) - 1)  # the separator at a joint counts once
        left_out = [f"{found.duplicates[split]:,}"] if settings.dedup else []
        rows.append([split, f"{documents:,}", gigabytes(size), f"{tokens:,}", str(len(parts)), *left_out])
    print_table(rows)
    if found.peak:
        most = f", of the largest worker {gigabytes(found.worker_peak)}" if found.worker_peak else ""
        print(f"peak memory: {gigabytes(found.peak)}{most}")
    print(settings.out)


def tokenize(settings: Tokenize) -> None:
    """`hornbook tokenize`."""
    from hornbook.text.corpora import open_corpus
    from hornbook.text.show import coloured, separated, summary, usage
    from hornbook.text.tokenizer_training import train_tokenizer
    from hornbook.text.tokenizers import load_tokenizer

    corpus = open_corpus(settings.data, settings.column)
    if settings.load:
        tokenizer = load_tokenizer(settings.load)
    else:
        print(corpus.describe(), file=sys.stderr)
        tokenizer = train_tokenizer(settings.kind, corpus.documents("train"), settings.vocab, **settings.flags())
    if settings.out:
        tokenizer.save(settings.out)
        print(settings.out)
    if settings.text is None:
        print(f"on the validation split of {corpus.name}:")
        print(summary(tokenizer, usage(tokenizer, corpus.documents("validation"))))
    elif console.is_terminal:
        console.print(coloured(tokenizer, settings.text))
    else:
        print(separated(tokenizer, settings.text))
