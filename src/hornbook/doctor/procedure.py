"""Is a model trained, carried on and measured as it should be? These look at the code around it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hornbook.config import ModelConfig, Train
from hornbook.data import shards
from hornbook.data.batches import Batches
from hornbook.data.loader import Group
from hornbook.data.shards import Shard
from hornbook.doctor.finding import FAIL, PASS, ROUNDING, Finding, NotApplicable, decide
from hornbook.doctor.subject import Subject
from hornbook.evaluation.score import score
from hornbook.layers.model import LanguageModel
from hornbook.parallel.processes import Processes
from hornbook.training import loop

CONTEXT = 8
LENGTHS = (3, 21, 9, 1)
"""Tokens of the documents that are scored: shorter than a window, longer than two, and one that is empty."""
STEPS, WARMUP = 100, 10


class Priced(LanguageModel):
    """A model by which token n costs 1 + n % 3 nats: what a text costs can be said beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.config = ModelConfig("", vocab=64, context=CONTEXT)
        self.register_buffer("somewhere", torch.zeros(1))

    def log_prob(self, tokens: Tensor, targets: Tensor, cache: Any = None, segments: Tensor | None = None) -> Tensor:
        return torch.where(targets < 0, 0.0, -(1.0 + targets % 3))


def documents() -> Shard:
    """A few documents of ids that tell them apart."""
    coded = [[*range(1, length), 0] for length in LENGTHS]
    starts = np.cumsum([1, *LENGTHS])
    sizes = np.array([5 * length for length in LENGTHS])
    return Shard(np.array([0, *itertools.chain.from_iterable(coded)]), starts, sizes, sizes, 64, 0, restorable=True)


def measuring(s: Subject) -> Finding:
    """Every token of every document once, nats summed and divided once, whatever the batch."""
    shard = documents()
    nats = float((1 + shard.tokens[1:] % 3).sum())
    count, size = sum(LENGTHS), int(shard.document_bytes.sum())
    for batch in (1, 3):
        found = score(Priced(), shard, batch=batch)
        if int(found.targets.sum()) != count:
            told = f"targets are scored in a text of {count}: some are left out, or padding is scored too"
            return Finding(FAIL, told, float(found.targets.sum()))
        if abs(math.log(found.token_perplexity) - nats / count) > ROUNDING:
            told = f"the perplexity of a text that has {math.exp(nats / count):.4g}: it is not summed and divided once"
            return Finding(FAIL, told, found.token_perplexity)
        if abs((found.bits_per_byte or 0) - nats / size / math.log(2)) > ROUNDING:
            told = f"the bits per byte of a text that has {nats / size / math.log(2):.4g}"
            return Finding(FAIL, told, found.bits_per_byte)
    return Finding(PASS, "a text's perplexity is of each of its tokens once, summed and divided once", float(count))


def resuming(s: Subject) -> Finding:
    """Batch k to a run that has just been carried on is what it would have been without a stop."""
    stream = np.arange(16 * CONTEXT, dtype=np.uint32)
    one = np.array([1])
    shard = Shard(stream, np.array([1, len(stream)]), one, one, len(stream), 0, restorable=True)
    first, again = (Batches(shard, 2, CONTEXT, seed=0) for _ in range(2))
    read = [first.get(k).tokens for k in range(6)]
    wrong = sum(not torch.equal(again.get(k).tokens, read[k]) for k in range(3, 6))
    return decide(
        float(wrong),
        0.0,
        "a run that is carried on reads on where it stopped",
        "of 3 batches after a stop are not those that come next: some text is read twice, some never",
    )


def schedule(s: Subject) -> Finding:
    """The learning rate moves with every step, and is above 0 until the last one."""
    rates = [loop.rate_factor("linear", step, WARMUP, step / STEPS) for step in range(STEPS)]
    nothing = sum(rate <= 0 for rate in rates)
    still = sum(one == other for one, other in itertools.pairwise(rates))
    if nothing:
        return Finding(
            FAIL, f"steps of {STEPS} have a learning rate of 0: the schedule is shorter than the run", nothing
        )
    if still > 1 or max(rates) < 1:
        return Finding(FAIL, f"steps of {STEPS} leave the learning rate as it was: it is not stepped with them", still)
    return Finding(PASS, "the learning rate rises and falls with every step, and is above 0 to the last", max(rates))


def mean_loss(s: Subject) -> Finding:
    """What a run reports as its loss is the mean over all of its targets."""
    losses, targets = (4.0, 2.0, 3.0, 1.0), (10, 30, 10, 2)
    wanted = sum(loss * count for loss, count in zip(losses, targets, strict=True)) / sum(targets)
    state = loop.State()
    course = loop.Course(a_machine(losses), Train("any"), len(losses), state, a_watch(), None)
    for count in targets:
        course.take(Group([], count, count))
    course.settle()
    found = state.nats / max(state.targets, 1)
    return decide(
        abs(found - wanted),
        ROUNDING,
        "the loss that a run reports is the mean over all of its targets",
        f"off: a run whose targets cost {wanted:.3f} nats on average reports {found:.3f}",
    )


def a_machine(losses: tuple[float, ...]) -> Any:
    """An engine that computes nothing, whose steps have these losses."""
    coming = iter(losses)
    gradients: Callable[..., Any] = lambda group, scale: (torch.tensor(next(coming)), torch.tensor(1.0))  # noqa: E731
    nothing: Callable[..., None] = lambda *given: None  # noqa: E731
    return SimpleNamespace(
        device=torch.device("cpu"), gradients=gradients, apply=nothing, drop=nothing, processes=Processes()
    )


def a_watch() -> loop.Watch:
    return loop.Watch(lambda taken, loss, norm: None, lambda state: (0.0, 0.0), lambda state, best: None)


def stored_ids(s: Subject) -> Finding:
    """The largest ids of the tokeniser come back from disk as they were."""
    if s.tokenizer is None or s.tokenizer.eos is None:
        raise NotApplicable("there is no tokeniser that can be read, or none that ends texts")
    last = s.tokenizer.vocab - 1
    ids = sorted({0, last // 2, last, *(i for i in (2**15, 2**16 - 1, 2**16) if i <= last)})
    path = s.scratch / "ids.safetensors"
    shards.write_shard(path, iter([("text", np.array(ids))]), s.tokenizer, {"version": shards.VERSION})
    found = shards.read_shard(path, {"version": shards.VERSION}).tokens[1:-1].tolist()
    if found == ids:
        return Finding(PASS, "the largest id that is stored comes back as it was", float(last))
    wrong = next(one for one, other in zip(ids, found, strict=True) if one != other)
    return Finding(FAIL, f"is stored, and comes back as {found[ids.index(wrong)]:,}: too few bits an id", float(wrong))
