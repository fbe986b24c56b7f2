"""Mistakes in where a token stands."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from hornbook.data.batches import NO_TARGET, Batch, Batches
from hornbook.mistakes.piece import HONEST, MISTAKEN, Figure, Measured, Piece, swapped
from hornbook.mistakes.school import BATCH, CONTEXT, gpt2, log_probs, loss_of, of_lines, padded, shard

PADS, BEHIND = 24, 16


def counted_from_the_left(model: Any) -> AbstractContextManager[None]:
    """Positions 0, 1, 2, ... of a row, padding or not."""
    real = model.survey

    def survey(tokens: Tensor, cache: Any, segments: Tensor | None) -> Any:
        positions, where = real(tokens, cache, segments)
        if cache is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
            where.angles = model.angles(positions)
        return positions, where

    return swapped((model, "survey", survey))


def wrapped(model: Any) -> AbstractContextManager[None]:
    """Positions beyond the table begin again at its first row."""
    real, rows = model.embed, model.config.context
    return swapped(
        (model, "check_fits", lambda length: None),
        (model, "embed", lambda tokens, positions: real(tokens, positions % rows)),
    )


def padded_left() -> Batch:
    """Held-out lines with padding in front."""
    b = padded("validation", 0, 8 * BATCH)
    front = torch.zeros_like(b.tokens[:, :PADS])
    parts = zip((front, front + NO_TARGET, front), (b.tokens, b.targets, b.segments), strict=True)
    return Batch(*(torch.cat([before, x[:, : CONTEXT - PADS]], 1) for before, x in parts if x is not None))


def measure_left(steps: int) -> Measured:
    model, b = of_lines(steps), padded_left()
    fair = loss_of(model, b)
    with counted_from_the_left(model):
        found = loss_of(model, b)
    figures = (
        Figure(f"loss on lines with {PADS} pads in front, positions counted from the row's start", found, MISTAKEN),
        Figure("loss on the same lines, positions counted from the text's start, nats a byte", fair, HONEST),
    )
    return Measured(figures, found > fair)


@torch.no_grad()
def measure_wrapped(steps: int) -> Measured:
    model, b = of_lines(steps), Batches(shard("validation", "paragraphs"), 4 * BATCH, 2 * CONTEXT, seed=1).get(0)
    behind, before = CONTEXT + BEHIND, CONTEXT // 2
    with wrapped(model):
        found = -float(log_probs(model, b.tokens[:, :behind], b.targets[:, :behind])[:, CONTEXT:].mean())
    window = slice(before, behind)
    fair = -float(log_probs(model, b.tokens[:, window], b.targets[:, window])[:, CONTEXT - before :].mean())
    figures = (
        Figure(f"loss on {BEHIND} bytes behind the table's end, where positions begin again", found, MISTAKEN),
        Figure("loss on the same bytes in a window that fits, nats a byte", fair, HONEST),
    )
    return Measured(figures, found > fair)


PIECES = (
    Piece(
        "left-pads",
        "Positions that ignore padding on the left",
        "For generation in batches short prompts are filled up on the left. Their texts then begin in the middle of "
        "the row, and positions that are counted from the row's start are wrong for every one of them.",
        "OPT from scratch, A4: positions are arange(0, seq_length) of the row, which is right as long as nothing "
        "stands in front; OPT-1.3B in 8 bit, E8, does it well: positions from the mask.",
        "Prompts alone are continued well, and worse in a batch with longer ones.",
        "padding left",
        counted_from_the_left,
        measure_left,
        gpt2,
        lambda model: hasattr(model, "survey"),
        "positions",
    ),
    Piece(
        "beyond-the-table",
        "Positions beyond the table",
        "A model with a table of positions gets a row longer than that. PyTorch raises an IndexError on a CPU; code "
        "that clips or wraps positions to make that go away reads on with wrong ones.",
        "OPT from scratch, A8: articles of 512 tokens for a model that was built with 128 positions.",
        "An error with luck; without it nothing, but for everything behind the table's end.",
        "too long",
        wrapped,
        measure_wrapped,
        gpt2,
        lambda model: getattr(model, "positions", None) is not None,
        "a table of positions",
    ),
)
