"""`--batch auto`: the largest batch that fits into memory and is among the fastest."""

from __future__ import annotations

import dataclasses
import time

import torch

from hornbook import machine
from hornbook.config import Learning
from hornbook.data.batches import Batch
from hornbook.data.loader import Group
from hornbook.layers.model import LanguageModel
from hornbook.progress import say
from hornbook.training.engine import Engine, out_of_memory
from hornbook.training.prepare import row_length

MOST = 512
NEAR = 0.97
"""Of the best speed, that counts as among the fastest."""
ROOM = 0.8
"""Of what is free, that may be taken."""


def find_batch(settings: Learning, model: LanguageModel, tokens: int) -> int:
    """Rows in a batch. Doubles them until memory or windows run out, or speed has fallen twice; measured uncompiled."""
    context = row_length(settings, model)
    windows = max(1, (tokens - 1) // context)
    random = torch.get_rng_state()
    trial = dataclasses.replace(settings, batch=1, rows=MOST, compile="no")
    engine = Engine(model, trial)
    reserve = 2 * sum(p.nbytes for p in engine.parameters)  # the optimiser's state, which is not there yet
    speeds: dict[int, float] = {}
    rows, before = 1, machine.peak_memory(engine.device)
    while rows <= min(MOST, windows) and falling(speeds) < 2:
        try:
            speeds[rows] = speed(engine, rows, context, model.config.vocab)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            break
        after = machine.peak_memory(engine.device)
        if 2 * (after - before) + reserve > ROOM * machine.available_memory(engine.device):
            break
        rows, before = 2 * rows, after
    engine.drop()
    machine.forget_peak(engine.device)
    torch.set_rng_state(random)
    good = [rows for rows, found in speeds.items() if found >= NEAR * max(speeds.values())]
    chosen = max(good, default=1)
    told = ", ".join(f"{rows}: {found:,.0f}" for rows, found in speeds.items())
    say(f"--batch auto: {chosen} rows (tokens/s by rows, not compiled: {told})")
    return chosen


def falling(speeds: dict[int, float]) -> int:
    """How many of the last trials were slower than the best."""
    found = list(speeds.values())
    return len(found) - 1 - found.index(max(found)) if found else 0


def speed(engine: Engine, rows: int, context: int, vocab: int) -> float:
    """Tokens a second of the gradients of a batch, the better of two after a first."""
    tokens = torch.randint(vocab, (rows, context + 1), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens[:, :-1], tokens[:, 1:]).to(engine.device)
    group, best = Group([batch], rows * context, rows * context), 0.0
    for trial in range(3):
        machine.synchronize(engine.device)
        began = time.perf_counter()
        engine.backward(group, 1.0)
        machine.synchronize(engine.device)
        best = max(best, rows * context / (time.perf_counter() - began)) if trial else 0.0
    return best
