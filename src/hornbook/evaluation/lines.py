"""The tutorials' own measure of a neural model: every line by itself, cut at 128 tokens, its first token not predicted.

Perplexity by tokens, so only comparable between models with one tokeniser. What lies behind the cut is never scored,
and no line has any context: more of the text's difficulty is left out, and less is known of it, than in `score`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from hornbook.data.batches import NO_TARGET
from hornbook.errors import UserError
from hornbook.evaluation.score import exponential, require_causal
from hornbook.layers.model import LanguageModel
from hornbook.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class LineScore:
    nats: float
    targets: int
    lost: int
    """Tokens behind the cut."""
    tokens: int
    """Tokens in all."""
    cut: int
    """Tokens of a line that are read at most."""

    @property
    def perplexity(self) -> float:
        return exponential(self.nats / self.targets)


@torch.inference_mode()
def score_lines(
    model: LanguageModel, tokenizer: Tokenizer, lines: Iterable[str], cut: int = 128, batch: int = 64
) -> LineScore:
    """Score lines of text; those of fewer than two tokens have no target."""
    require_causal(model)
    device = model.device
    every = tokenizer.encode_batch(list(lines))
    cut = min(cut, model.config.context)
    rows = sorted((ids[:cut] for ids in every if len(ids) > 1), key=len)
    if not rows:
        raise UserError("no line has two tokens: there is nothing to measure")
    nats = 0.0
    for first in range(0, len(rows), batch):
        some = rows[first : first + batch]
        table = np.full((len(some), len(some[-1])), NO_TARGET, np.int64)
        for i, ids in enumerate(some):
            table[i, : len(ids)] = ids
        tokens, targets = torch.from_numpy(table[:, :-1]), torch.from_numpy(table[:, 1:])
        nats -= float(model.log_prob(tokens.clamp(min=0).to(device), targets.to(device)).cpu().double().sum())
    whole = sum(map(len, every))
    return LineScore(nats, sum(len(ids) - 1 for ids in rows), whole - sum(len(ids[:cut]) for ids in every), whole, cut)
