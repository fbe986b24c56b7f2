"""Mistakes in how a model is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
from torch import Tensor

from hornbook.data.shards import Shard
from hornbook.evaluation import score as scoring
from hornbook.evaluation.score import Scores, Window, exponential, score
from hornbook.layers.model import LanguageModel
from hornbook.mistakes.piece import HONEST, MISTAKEN, Figure, Measured, Piece, swapped
from hornbook.mistakes.school import (
    CONTEXT,
    PaddedLines,
    fresh,
    honest,
    shard,
    teach,
)
from hornbook.mistakes.targets import learning, pads_too

LINES = 256
"""Of held-out text that are scored."""


def few(part: str, cut: str) -> Shard:
    """The first LINES documents of a shard."""
    whole = shard(part, cut)
    n = min(LINES, whole.documents)
    end = int(whole.starts[n])
    sizes = whole.document_bytes[:n], whole.document_words[:n]
    return Shard(whole.tokens[:end], whole.starts[: n + 1], *sizes, whole.vocab, whole.separator, restorable=True)


def averaged(size: int) -> property:
    """The mean of the perplexities of batches of `size` documents."""

    def perplexity(self: Scores) -> float:
        starts = range(0, len(self.nats), size)
        batches = [(self.nats[i : i + size].sum(), self.targets[i : i + size].sum()) for i in starts]
        return float(np.mean([exponential(nats / count) for nats, count in batches]))

    return property(perplexity)


def batch_by_batch(size: int) -> Callable[[LanguageModel], AbstractContextManager[None]]:
    return lambda model: swapped((Scores, "token_perplexity", averaged(size)))


def measure_averaged(steps: int) -> Measured:
    found, by = score(honest(steps), few("validation", "lines")), {}
    for size in (1, 16):
        with batch_by_batch(size)(honest(steps)):
            by[size] = found.token_perplexity
    figures = (
        Figure("perplexity a byte, as the mean over lines", by[1], MISTAKEN),
        Figure("as the mean over batches of 16 lines", by[16], MISTAKEN),
        Figure("exp of all nats over all bytes and ends", found.token_perplexity, HONEST),
    )
    return Measured(figures, by[1] > found.token_perplexity and by[1] != by[16])


def with_padding(model: LanguageModel) -> AbstractContextManager[None]:
    """All documents filled up to the longest of a batch, and the filling scored like anything else."""
    real, pad = scoring.gather, model.config.pad or 0

    def gather(text: Shard, rows: list[Window]) -> tuple[Tensor, Tensor]:
        tokens, goals = real(text, rows)
        for i, row in enumerate(rows):
            tokens[i, row.length :] = goals[i, row.length :] = pad
            rows[i] = dataclasses.replace(row, scored=row.scored + goals.shape[1] - row.length)
        return tokens, goals

    return swapped((scoring, "gather", gather))


def measure_padded(steps: int) -> Measured:
    model = fresh()
    with learning(pads_too)(model):  # whoever scores padding has learnt it
        teach(model, steps, PaddedLines)
    text = few("validation", "lines")
    fair = score(model, text)
    with with_padding(model):
        found = score(model, text, batch=LINES)
    figures = (
        Figure("perplexity a token of lines with their padding", found.token_perplexity, MISTAKEN),
        Figure("perplexity a token of the same lines without", fair.token_perplexity, HONEST),
        Figure("share of what is scored that is padding", 1 - float(fair.targets.sum() / found.targets.sum())),
    )
    return Measured(figures, found.token_perplexity < fair.token_perplexity)


def cut_short(model: LanguageModel) -> AbstractContextManager[None]:
    """Of every document the first window only."""
    real = scoring.cut_windows

    def cut(text: Shard, *given: int) -> Iterator[Window]:
        done: set[int] = set()
        for window in real(text, *given):
            if window.document not in done:
                yield window
            done.add(window.document)

    return swapped((scoring, "cut_windows", cut))


def measure_cut(steps: int) -> Measured:
    model, text = honest(steps), few("validation", "paragraphs")
    fair = score(model, text)
    with cut_short(model):
        found = score(model, text)
    figures = (
        Figure(
            f"share of the tokens that is scored, paragraphs cut at {CONTEXT}",
            found.targets.sum() / fair.targets.sum(),
            MISTAKEN,
        ),
        Figure("share where windows move over all of it", 1.0, HONEST),
        Figure("perplexity of what is left", found.token_perplexity, MISTAKEN),
        Figure("perplexity of all", fair.token_perplexity, HONEST),
    )
    return Measured(figures, bool(found.targets.sum() < fair.targets.sum()))


PIECES = (
    Piece(
        "averaged-perplexity",
        "Perplexity averaged over batches",
        "A perplexity is exp of one sum over one count. The mean of many perplexities, or of many means, gives "
        "short lines the weight of long ones, and changes with the size of the batch.",
        "Llama 3 from scratch, B17 and B24: exp of Trainer.evaluate's eval_loss, which is a mean of batches' means, "
        "weighted by their rows and not by their tokens.",
        "A plausible number, which no other batch size gives again.",
        "measuring",
        batch_by_batch(1),
        measure_averaged,
    ),
    Piece(
        "padded-lines",
        "Perplexity of padded lines",
        "Lines filled up to one length are scored with their filling, which costs nothing once it is learnt.",
        "In none of the five tutorials as a perplexity; OPT from scratch, A6 and A7, has it in its loss: all rows are "
        "filled up to 128, and nothing tells text and filling apart.",
        "A perplexity that falls as lines get shorter.",
        "measuring",
        with_padding,
        measure_padded,
    ),
    Piece(
        "cut-lines",
        "Perplexity of lines that are cut",
        "What stands behind a line's first 128 tokens is never scored, and no line has anything in front of it.",
        "Llama 3 from scratch, B12 and B17: truncation=True, max_length=128, for the validation split as well, of "
        "whose tokens that drops 26 %.",
        "A perplexity of another text than the one that is named beside it.",
        "measuring",
        cut_short,
        measure_cut,
    ),
)
