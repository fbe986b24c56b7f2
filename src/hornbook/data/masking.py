"""Training examples for an encoder: some tokens are hidden, and only those are targets (Devlin et al. 2019, 3.1)."""

from __future__ import annotations

import numpy as np
import torch

from hornbook.data.batches import NO_TARGET, Batch
from hornbook.errors import UserError
from hornbook.text.tokenizers import Tokenizer


def mask_tokens(batch: Batch, mask: int, vocab: int, key: tuple[int, ...], share: float = 0.15) -> Batch:
    """Hide `share` of the tokens: 80 % become `mask`, 10 % another token, 10 % stay. The choice follows from `key`."""
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    shape = tuple(batch.tokens.shape)
    real = batch.targets != NO_TARGET
    chosen = torch.from_numpy(random.random(shape) < share) & real
    kind = torch.from_numpy(random.random(shape))
    other = torch.from_numpy(random.integers(0, vocab, shape))
    shown = torch.where(kind < 0.8, mask, torch.where(kind < 0.9, other, batch.tokens))
    segments = real.long() if batch.segments is None and not real.all() else batch.segments
    return Batch(torch.where(chosen, shown, batch.tokens), torch.where(chosen, batch.tokens, NO_TARGET), segments)


def mask_token(tokenizer: Tokenizer) -> int:
    """The id that hides a token from an encoder."""
    if tokenizer.mask is None:
        raise UserError("an encoder needs a tokeniser with a mask token: train one here (--tokenizer bpe)")
    return tokenizer.mask
