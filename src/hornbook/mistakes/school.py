"""A class room: the language reference that every Python carries, tokens that are its bytes, and a model that learns
something of it in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hornbook import models
from hornbook.data.batches import NO_TARGET, Batch, Batches
from hornbook.data.packing import Piece as Row
from hornbook.data.packing import stacked
from hornbook.data.shards import Shard
from hornbook.doctor.subject import reduced
from hornbook.layers.model import LanguageModel
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.text.tokenizers import Tokenizer
from hornbook.training import loop
from hornbook.training.objective import Objective

BATCH, CONTEXT, RATE = 16, 64, 5e-3
FAMILY = "llama"
"""Of those here the quickest to learn more than pairs of letters."""


@cache
def bytes_tokenizer() -> Tokenizer:
    return train_tokenizer("bytes", [])


@cache
def topics(part: str) -> tuple[str, ...]:
    """The reference's topics: `validation` is every eighth, `train` the others."""
    found = [text for _, text in sorted(import_module("pydoc_data.topics").topics.items())]
    return tuple(text for i, text in enumerate(found) if (i % 8 == 3) == (part == "validation"))


@cache
def lines(part: str) -> tuple[str, ...]:
    """Their lines, the empty ones too."""
    return tuple(line for text in topics(part) for line in text.splitlines())


@cache
def paragraphs(part: str) -> tuple[str, ...]:
    """What stands between empty lines, as WikiText's lines do."""
    return tuple(" ".join(part.split()) for text in topics(part) for part in text.split("\n\n") if part.strip())


def in_memory(texts: Sequence[str], tokenizer: Tokenizer) -> Shard:
    """A shard of documents that lies on no disk."""
    assert tokenizer.eos is not None
    coded = [[*ids, tokenizer.eos] for ids in tokenizer.encode_batch(list(texts))]
    starts = np.cumsum([1, *map(len, coded)])
    sizes = np.array([len(text.encode()) for text in texts])
    words = np.array([len(text.split()) for text in texts])
    tokens = np.array([tokenizer.eos, *(i for ids in coded for i in ids)])
    return Shard(tokens, starts, sizes, words, tokenizer.vocab, tokenizer.eos, restorable=tokenizer.kind != "word")


@cache
def shard(part: str, cut: str = "topics") -> Shard:
    """Bytes of `topics`, `lines` or `paragraphs`."""
    texts = {"topics": topics, "lines": lines, "paragraphs": paragraphs}[cut](part)
    return in_memory(texts, bytes_tokenizer())


def fresh(family: str = FAMILY, seed: int = 0, **changes: Any) -> LanguageModel:
    """A new model of a family, made small, in evaluation mode."""
    t = bytes_tokenizer()
    size = reduced(next(iter(models.family(family).SIZES.values())).replace(vocab=t.vocab, context=CONTEXT))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = models.build(size.replace(**({"bos": t.bos, "eos": t.eos, "pad": t.pad} | changes)))
    model.tokenizer = t
    return model.eval()


def stream(cut: str = "topics") -> Batches:
    """Batches as training cuts them."""
    return Batches(shard("train", cut), BATCH, CONTEXT, seed=0)


def gpt2() -> LanguageModel:
    return fresh("gpt2")


def opt() -> LanguageModel:
    return fresh("opt")


def padded(part: str, k: int, rows: int = BATCH) -> Batch:
    """Batch k of lines, each in a row of its own: cut to the context, and filled up."""
    texts, t = lines(part), bytes_tokenizer()
    chosen = np.random.default_rng((7, k)).integers(len(texts), size=rows)
    coded = [np.array([t.eos, *t.encode(texts[i]), t.eos], np.int32)[: CONTEXT + 1] for i in chosen]
    assert t.pad is not None
    found = stacked([[Row(ids[:-1], ids[1:])] for ids in coded], CONTEXT)
    assert found.segments is not None
    return Batch(torch.where(found.segments == 0, t.pad, found.tokens), found.targets, found.segments)


class PaddedLines:
    """Batches of lines, one a row."""

    get = staticmethod(partial(padded, "train"))


@torch.enable_grad()  # who measures a mistake may want none
def teach(model: LanguageModel, steps: int, batches: Any = None, rate: float = RATE) -> list[float]:
    """Train with AdamW, a third of the steps as warm-up, then straight down; every step's loss, in nats a target."""
    batches, warmup = batches or stream(), max(1, steps // 3)
    objective = Objective(model)
    objective.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, betas=(0.9, 0.95))
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * loop.rate_factor("linear", step, warmup, step / steps)
        nats, count = objective(*batches.get(step).arguments)
        optimizer.zero_grad()
        (nats / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(nats.detach()) / int(count))
    model.eval()
    return losses


def shown(losses: list[float]) -> float:
    """What a progress bar ends with: the mean over the last tenth."""
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


@cache
def honest(steps: int, family: str = FAMILY) -> LanguageModel:
    """The same model, taught without a mistake."""
    model = fresh(family)
    teach(model, steps)
    return model


@cache
def of_lines(steps: int) -> LanguageModel:
    """GPT-2, with its table of positions, taught lines: what it writes hangs on how far the line has come."""
    model = gpt2()
    teach(model, steps, PaddedLines)
    return model


@torch.no_grad()
def loss_of(model: LanguageModel, b: Batch) -> float:
    """Mean nats of the targets by the model's logits, whatever its own loss may say."""
    return -float(log_probs(model, b.tokens, b.targets, b.segments).sum()) / b.count


def log_probs(model: LanguageModel, tokens: Tensor, targets: Tensor, segments: Tensor | None = None) -> Tensor:
    """(B,T) log-probabilities of targets by the logits; 0 where there is none."""
    found = model(tokens, segments=segments).log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return torch.where(targets == NO_TARGET, 0.0, found)


def held_out(model: LanguageModel) -> float:
    """Nats a byte of the next byte, on topics that nothing was learnt from."""
    return loss_of(model, Batches(shard("validation"), 64, CONTEXT, seed=0).get(0))
