"""`--batch auto`: the largest batch that fits into memory and is among the fastest."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from hornbook import machine
from hornbook.config import Learning
from hornbook.data.batches import Batch
from hornbook.data.loader import Group
from hornbook.layers.model import LanguageModel
from hornbook.progress import say
from hornbook.training.engine import Engine, random_state, set_random_state
from hornbook.training.prepare import row_length

MOST = 512
NEAR = 0.97
"""Of the best speed, that counts as among the fastest."""
ROOM = 0.8
"""Of what is free, that may be taken."""


Lesson = Callable[[Any], tuple[nn.Module, Callable[[int], Batch]]]
"""From settings whose batch is 1: what is minimised, and what makes a batch of so many rows."""


def find_batch(settings: Learning, model: LanguageModel, tokens: int, lesson: Lesson | None = None) -> int:
    """Rows in a batch of `lesson`, or where there is none of random tokens. Doubles them until memory or windows run
    out, or speed has fallen twice; measured uncompiled."""
    context = row_length(settings, model.config)
    windows = max(1, (tokens - 1) // context)
    device = torch.device(settings.device or "cpu")
    drawn = random_state(device)
    trial = dataclasses.replace(settings, batch=1, rows=MOST, compile="no")
    objective, batch = lesson(trial) if lesson else (None, partial(random_batch, context, model.config.vocab))
    machine.forget_peak(device)
    engine = Engine(model, trial, objective)
    engine.objective.train()
    reserve = 2 * sum(p.nbytes for p in engine.parameters)  # the optimiser's state, which is not there yet
    speeds: dict[int, float] = {}
    rows, before = 1, machine.peak_memory(engine.device)
    while rows <= min(MOST, windows) and falling(speeds) < 2:
        try:
            speeds[rows] = speed(engine, batch(rows))
        except RuntimeError as error:
            if not machine.out_of_memory(error):
                raise
            break
        after = machine.peak_memory(engine.device)
        if 2 * (after - before) + reserve > ROOM * machine.available_memory(engine.device):
            break
        rows, before = 2 * rows, after
    engine.drop()
    machine.forget_peak(engine.device)
    set_random_state(device, drawn)
    good = [rows for rows, found in speeds.items() if found >= NEAR * max(speeds.values())]
    chosen = max(good, default=1)
    told = ", ".join(f"{rows}: {found:,.0f}" for rows, found in speeds.items())
    say(f"--batch auto: {chosen} rows (tokens/s by rows, not compiled: {told})")
    return chosen


def falling(speeds: dict[int, float]) -> int:
    """How many of the last trials were slower than the best."""
    found = list(speeds.values())
    return len(found) - 1 - found.index(max(found)) if found else 0


def random_batch(context: int, vocab: int, rows: int) -> Batch:
    tokens = torch.randint(vocab, (rows, context + 1), generator=torch.Generator().manual_seed(0))
    return Batch(tokens[:, :-1], tokens[:, 1:])


def speed(engine: Engine, batch: Batch) -> float:
    """Tokens a second of the gradients of a batch, the better of two after a first."""
    tokens, best = batch.tokens.numel(), 0.0
    group = Group([batch.to(engine.device)], batch.count, tokens)
    for trial in range(3):
        machine.synchronize(engine.device)
        began = time.perf_counter()
        engine.backward(group, 1.0)
        machine.synchronize(engine.device)
        best = max(best, tokens / (time.perf_counter() - began)) if trial else 0.0
    return best
