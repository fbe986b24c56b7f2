"""Mistakes in the course of a training run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from hornbook.data.batches import Batch, Batches
from hornbook.data.shards import Shard
from hornbook.layers.model import LanguageModel
from hornbook.mistakes.piece import HONEST, MISTAKEN, Figure, Measured, Piece, swapped
from hornbook.mistakes.school import BATCH, CONTEXT, fresh, held_out, honest, log_probs, shard, teach
from hornbook.training import loop


def only_the_last(model: LanguageModel) -> AbstractContextManager[None]:
    """What a run keeps of its losses is the last one."""
    real = loop.Course.settle

    def settle(self: Any) -> None:
        waits = self.pending is not None
        if waits:
            self.state.nats, self.state.targets = 0.0, 0
        real(self)

    return swapped((loop.Course, "settle", settle))


@torch.no_grad()
def measure_last(steps: int) -> Measured:
    model, rows = honest(steps), Batches(shard("validation"), BATCH, CONTEXT, seed=0)
    batches = [rows.get(k) for k in range(32)]
    losses = [-float(log_probs(model, b.tokens, b.targets).sum()) / b.count for b in batches]
    mean, last = sum(losses) / len(losses), losses[-1]
    figures = (
        Figure("loss of the last batch, nats a byte", last, MISTAKEN),
        Figure("mean over all batches", mean, HONEST),
        Figure("lowest of the batches: the model is the same", min(losses)),
        Figure("highest", max(losses)),
    )
    return Measured(figures, last != mean and min(losses) < mean < max(losses))


def from_the_start(model: LanguageModel) -> AbstractContextManager[None]:
    """Batches come as from an iterator that knows no place: whatever is asked for, a new one begins at the first."""
    real = Batches.get

    def get(self: Any, k: int) -> Batch:
        self.given = getattr(self, "given", -1) + 1
        return real(self, self.given)

    return swapped((Batches, "get", get))


def read_in_an_epoch() -> float:
    """Share of an epoch's text that is read by a run that dies in the middle of it, and is carried on."""
    length, one = 64 * CONTEXT, np.array([1])
    text = Shard(np.arange(length, dtype=np.uint32), np.array([1, length]), one, one, length, 0, restorable=True)
    before, after = (Batches(text, 1, CONTEXT, seed=0) for _ in range(2))
    steps = before.windows
    seen = [(before if k < steps // 2 else after).get(k) for k in range(steps)]
    read = torch.cat([b.targets[b.targets >= 0] for b in seen])
    return len(read.unique()) / (length - 1)


def measure_resume(steps: int) -> Measured:
    fair = read_in_an_epoch()
    with from_the_start(fresh()):
        found = read_in_an_epoch()
    figures = (
        Figure("share of the epoch's text that is read, where the second half begins anew", found, MISTAKEN),
        Figure("share of it where the run goes on from its place", fair, HONEST),
        Figure("share that is read twice", 1 - found),
    )
    return Measured(figures, found < fair == 1)


def never_in_training(model: LanguageModel) -> AbstractContextManager[None]:
    """The model stays in evaluation mode."""
    return swapped((model, "train", lambda mode=True: model))


@torch.no_grad()
def measure_eval(steps: int) -> Measured:
    """Taught a small text over and over, as in fine-tuning."""
    few = Batches(shard("train", "paragraphs"), 4, CONTEXT, seed=0)
    again = [few.get(k) for k in range(4)]
    found: dict[str, Any] = {}
    for name, plant in ((MISTAKEN, never_in_training), (HONEST, lambda model: swapped())):
        model = with_dropout()
        with plant(model), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            teach(model, steps, Again(again))
            passes = [teach(model, 1, Again(again), rate=0.0)[0] for _ in range(2)]
        found[name] = abs(passes[0] - passes[1]), held_out(model)
    figures = (
        Figure("difference of two training passes over one batch", found[MISTAKEN][0], MISTAKEN),
        Figure("difference where dropout is on", found[HONEST][0], HONEST),
        Figure("nats for the next byte of other text, after a few rows over and over", found[MISTAKEN][1], MISTAKEN),
        Figure("the same with dropout on", found[HONEST][1], HONEST),
    )
    return Measured(figures, found[MISTAKEN][0] == 0 < found[HONEST][0])


class Again:
    """The same few batches, over and over."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def get(self, k: int) -> Batch:
        return self.batches[k % len(self.batches)]


def with_dropout() -> LanguageModel:
    return fresh("gpt2", dropout=0.2)


PIECES = (
    Piece(
        "last-batch",
        "The last batch's loss, reported as the epoch's",
        "What is printed after an epoch is the loss of whichever batch came last. It moves with that batch's text "
        "more than with what was learnt; and it is a loss on text that was trained on.",
        "OPT from scratch, A7: print(loss.item()) behind the loop over batches.",
        "A number per epoch that goes up and down, or looks better than it is.",
        "mean loss",
        only_the_last,
        measure_last,
    ),
    Piece(
        "lost-place",
        "Carrying on without the place in the data",
        "A checkpoint has weights and optimiser, and not where the data stood: the run that is carried on reads the "
        "beginning again, and of that epoch never the end.",
        "In none of the five tutorials, which never carry on; in loops around a DataLoader whose iterator is made "
        "anew.",
        "Nothing, or a small step down in the loss: the text is known already.",
        "resuming",
        from_the_start,
        measure_resume,
    ),
    Piece(
        "eval-mode",
        "Fine-tuning in evaluation mode",
        "from_pretrained gives a model in evaluation mode. Without a call of train() dropout is off, however it is "
        "set.",
        "GPT overview, C5: the loop begins right after from_pretrained.",
        "A training loss that falls faster than ever, and a model that soon knows its few examples by heart.",
        "training mode",
        never_in_training,
        measure_eval,
        with_dropout,
    ),
)
