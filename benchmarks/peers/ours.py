"""Hornbook's own training step on the peers' shapes and data: python -m peers.ours NAME SHAPE prints a line of JSON."""

from __future__ import annotations

import dataclasses

import torch

from hornbook import models
from hornbook.bench import Case, settings_of, stepper
from hornbook.data.batches import Batch
from peers.loops import options
from peers.measuring import SHAPES, Clock, Shape, answer, random_rows

OPTIMIZERS = {"hornbook": "adamw", "hornbook-muon": "muon"}


def train(shape: Shape, clock: Clock, optimizer: str) -> None:
    """As `hornbook train` settles it on this machine, but for the optimiser."""
    sizes = {"dim": shape.dim, "layers": shape.layers, "heads": shape.heads, "context": shape.context}
    config = models.find_size("gpt2-tiny").replace(vocab=shape.vocab, bos=None, eos=None, **sizes)
    model = models.build(config)
    settings = settings_of(Case("gpt2-tiny", config, shape.rows), model, torch.device("cpu"))
    step = stepper(model, dataclasses.replace(settings, optimizer=optimizer, lr=1e-3))
    rows, k = random_rows(shape), 0
    clock.start()
    going = True
    while going:
        part = rows[k * shape.rows % len(rows) :][: shape.rows]
        loss = float(step(Batch(part[:, :-1], part[:, 1:])))
        k += 1
        going = clock.tick()
    answer(clock, shape, model, shape.context * shape.dim, loss)


if __name__ == "__main__":
    given = options(list(OPTIMIZERS))
    torch.manual_seed(0)
    train(SHAPES[given.shape], Clock(given.warmup, given.steps, given.seconds), OPTIMIZERS[given.name])
