"""Mistakes in how the learning rate moves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from hornbook.layers.model import LanguageModel
from hornbook.mistakes.piece import HONEST, MISTAKEN, Figure, Measured, Piece, swapped
from hornbook.mistakes.school import fresh, held_out, honest, teach
from hornbook.training import loop

EPOCHS, SPLITS = 3, 3
RATE_FACTOR = loop.rate_factor
ROWS = 36_718
"""Lines of WikiText-2's training split, the empty ones too."""


def stepped_by_epoch(name: str, step: int, warmup: int, progress: float) -> float:
    """The schedule's steps are epochs, of which a run has EPOCHS."""
    epoch, steps = int(EPOCHS * progress), step / progress if progress else 1.0
    return RATE_FACTOR(name, epoch, warmup, epoch / steps)


def counted_in_splits(name: str, step: int, warmup: int, progress: float) -> float:
    """The schedule is as long as the number of splits times that of epochs."""
    return RATE_FACTOR(name, step, warmup, min(1.0, step / (SPLITS * EPOCHS)))


def scheduled(factor: Callable[..., float]) -> Callable[[LanguageModel], AbstractContextManager[None]]:
    return lambda model: swapped((loop, "rate_factor", factor))


def measure_schedule(factor: Callable[..., float], aside: Callable[[], Figure]) -> Callable[[int], Measured]:
    """The same model and steps under both schedules, of which a third is warm-up."""

    def measure(steps: int) -> Measured:
        model = fresh()
        with scheduled(factor)(model):
            teach(model, steps)
        found, fair = held_out(model), held_out(honest(steps))
        figures = (
            Figure("nats for the next byte under this schedule", found, MISTAKEN),
            Figure("with the schedule as long as the run", fair, HONEST),
            aside(),
        )
        return Measured(figures, found > fair)

    return measure


def lost_steps() -> Figure:
    """The tutorial's own numbers: 3 epochs of WikiText-2's lines in batches of 16, a warm-up of 100 steps, and
    transformers' linear schedule, whose first step has a rate of 0."""
    steps = EPOCHS * -(-ROWS // 16)
    rates = [step / 100 if step < 100 else max(0.0, SPLITS * EPOCHS - step) for step in range(steps)]
    return Figure(
        f"share of the tutorial's {steps:,} steps whose rate is 0", sum(r <= 0 for r in rates) / steps, MISTAKEN
    )


def highest_rate() -> Figure:
    rates = [stepped_by_epoch("linear", step, 100, step / 3000) for step in range(3000)]
    return Figure("share of the asked rate that 3 epochs ever reach here, with a warm-up of 100", max(rates), MISTAKEN)


PIECES = (
    Piece(
        "schedule-in-splits",
        "A schedule whose length is counted in splits",
        "len() of a dictionary of data sets is the number of its splits: three. A schedule of 3 x 3 = 9 steps with "
        "100 steps of warm-up climbs for 100 steps, and is 0 for the rest of the run.",
        "OPT from scratch, A7: num_training_steps=len(tokenized_datasets) * epochs; and A10 again.",
        "The loss falls at first and then stands still, which looks like a model that has learnt all that it can.",
        "schedule",
        scheduled(counted_in_splits),
        measure_schedule(counted_in_splits, lost_steps),
    ),
    Piece(
        "schedule-by-epoch",
        "A schedule that is stepped once an epoch",
        "Warm-up and decay are counted in steps, and the schedule is stepped where an epoch ends: in a run of a few "
        "epochs it never leaves its warm-up.",
        "In none of the five tutorials (A7 steps it with every batch); where a loop for schedules by epoch is given "
        "one by steps.",
        "A loss that falls so slowly that one asks for more data, or a larger model.",
        "schedule",
        scheduled(stepped_by_epoch),
        measure_schedule(stepped_by_epoch, highest_rate),
    ),
)
