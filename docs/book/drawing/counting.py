"""The pictures of chapters 1 and 2."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from drawing.common import BLUE, INK, counted
from hornbook import models
from hornbook.data.shards import open_split
from hornbook.evaluation.score import score
from hornbook.layers.ngram_counts import count_ngrams
from hornbook.models.ngram import NGramConfig
from hornbook.text.corpora import open_corpus
from hornbook.text.tokenizer_store import obtain_tokenizer


def vocabulary() -> Figure:
    """What a kilobyte of held-out text takes, by the size of the vocabulary."""
    corpus = open_corpus("python-docs", "text")
    held = list(corpus.documents("validation"))
    size = sum(len(text.encode()) for text in held) / 1000
    sizes = [259, 512, 1024, 2048, 4096, 8192, 16384]
    tokens = []
    for vocab in sizes:
        kind = "bytes" if vocab == 259 else "bpe"
        ids = obtain_tokenizer(kind, corpus, vocab).encode_batch(held)
        tokens.append(sum(map(len, ids)) / size)
    figure, axes = plt.subplots()
    axes.plot(sizes, tokens, color=BLUE, marker="o")
    for vocab, count in zip(sizes, tokens, strict=True):
        axes.annotate(f"{count:.0f}", (vocab, count), (0, 7), textcoords="offset points", ha="center", color=INK)
    axes.set(xscale="log", xlabel="tokens in the vocabulary", ylabel="tokens a kilobyte", ylim=(0, None))
    axes.set_xticks(sizes, [f"{vocab:,}" for vocab in sizes])
    axes.minorticks_off()
    return figure


def unseen() -> Figure:
    """How much of held-out text was never seen, by the length of what is looked up."""
    train, held, vocab = counted()
    orders, shares = range(1, 8), []
    for order in orders:
        windows = [np.lib.stride_tricks.sliding_window_view(tokens, order) for tokens in (train, held)]
        known = {row.tobytes() for row in np.ascontiguousarray(windows[0])}
        shares.append(np.mean([row.tobytes() not in known for row in np.ascontiguousarray(windows[1])]))
    figure, axes = plt.subplots()
    axes.bar(list(orders), [100 * share for share in shares], color=BLUE, width=0.65)
    for order, share in zip(orders, shares, strict=True):
        axes.text(order, 100 * share + 1.5, f"{share:.0%}", ha="center", color=INK)
    axes.set(xlabel="tokens in a row", ylabel="never seen before, %", ylim=(0, 108), xticks=list(orders))
    assert count_ngrams(train, 1, vocab)
    return figure


def size_and_score() -> Figure:
    """What each order keeps, and what it reaches."""
    corpus = open_corpus("python-docs", "text")
    tokenizer = obtain_tokenizer("bpe", corpus, None)
    shards = [open_split(corpus, tokenizer, split) for split in ("train", "validation")]
    ids = {"bos": tokenizer.eos, "eos": tokenizer.eos, "pad": tokenizer.pad}
    points = []
    for order in range(1, 7):
        model = models.build(NGramConfig("ngram", vocab=tokenizer.vocab, order=order, **ids))
        model.fit(np.asarray(shards[0].tokens))
        points.append((model.parameter_count(), score(model, shards[1]).bits_per_byte))
    figure, axes = plt.subplots()
    axes.plot(*zip(*points, strict=True), color=BLUE, marker="o")
    for order, (numbers, bits) in enumerate(points, start=1):
        axes.annotate(str(order), (numbers, bits), (4, 6), textcoords="offset points", color=INK)
    axes.set(xlabel="numbers kept, by order", ylabel="bits per byte", xscale="log")
    axes.margins(0.12)
    return figure


PICTURES = {"vocabulary": vocabulary, "unseen": unseen, "size-and-score": size_and_score}
