"""Mistakes in telling classes apart."""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from hornbook.data.batches import NO_TARGET, Batch
from hornbook.layers import class_head
from hornbook.layers.class_head import give_class_head
from hornbook.layers.model import LanguageModel
from hornbook.mistakes.piece import HONEST, MISTAKEN, Figure, Measured, Piece, swapped
from hornbook.mistakes.school import BATCH, RATE, fresh, shard
from hornbook.training.objective import ClassObjective

LENGTH = 24
PLACES = class_head.judged_places


def first(tokens: Tensor, segments: Tensor, causal: bool) -> Tensor:
    return PLACES(tokens, segments, causal=False)


def on_the_first(model: LanguageModel) -> AbstractContextManager[None]:
    """The class is read from the first token."""
    return swapped((class_head, "judged_places", first))


def examples(part: str, k: int, rows: int = 2 * BATCH) -> tuple[Batch, Tensor]:
    """Pieces of text, the second half of every other one in capitals; which (B,); the class at its place."""
    text, random = shard(part).tokens, np.random.default_rng((3, k))
    starts = random.integers(len(text) - LENGTH, size=rows)
    tokens = torch.from_numpy(text[starts[:, None] + np.arange(LENGTH)])
    loud = torch.arange(rows) % 2
    small = (tokens >= ord("a")) & (tokens <= ord("z")) & (torch.arange(LENGTH) >= LENGTH // 2)
    tokens = torch.where(small & (loud[:, None] == 1), tokens - 32, tokens)
    targets, segments = torch.full_like(tokens, NO_TARGET), torch.ones_like(tokens)
    targets[torch.arange(rows), class_head.judged_places(tokens, segments, True)] = loud
    return Batch(tokens, targets, segments), loud


def accuracy(steps: int) -> float:
    """Of a model that learns which texts end in capitals."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = give_class_head(fresh(), ("calm", "loud"))
    objective = ClassObjective(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    for step in range(steps):
        nats, count = objective(*examples("train", step)[0].arguments)
        optimizer.zero_grad()
        (nats / count).backward()
        optimizer.step()
    b, truth = examples("validation", 0, 512)
    with torch.no_grad():
        found = model.class_logits(model.hidden(b.tokens, segments=b.segments)).argmax(-1)
    return float((found[b.targets != NO_TARGET] == truth).float().mean())


def measure(steps: int) -> Measured:
    with on_the_first(fresh()):
        found = accuracy(steps)
    fair = accuracy(steps)
    figures = (
        Figure(
            "share of texts, of which half end in capitals, that are told right by the first token", found, MISTAKEN
        ),
        Figure("share told right by the last token", fair, HONEST),
        Figure("share that guessing tells right", 0.5),
    )
    return Measured(figures, found < fair)


PIECES = (
    Piece(
        "first-token",
        "Classifying by the first token",
        "BERT's [CLS] stands first and sees all of the text. In a decoder the first position sees itself alone: "
        "whatever follows, its output is the same.",
        "In none of the five tutorials as it stands: OPT from scratch, A11, takes the outputs at all positions, "
        "which fails; in classifiers that carry BERT's habit over to a GPT.",
        "The model learns how often each class occurs, and calls that its accuracy.",
        "class place",
        on_the_first,
        measure,
    ),
)
