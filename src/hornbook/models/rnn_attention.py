"""The recurrent rung that may look back: each state attends to all earlier states of its own text, itself included.

The score is the "general" one of Luong et al. 2015 (section 3.1): h_t W h_s / sqrt(D) for s <= t. What is found is
added to the state: h_t + C mix_t, which keeps all that the plain RNN has.
(Luong's tanh(C [h_t; mix_t]) learnt more slowly here; the tutorials keep only the mix and lose the state itself.)
Computed for all positions at once: one product, masked to the past.
"""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor, nn

from hornbook.config import ModelConfig
from hornbook.layers.attention import Where, fused
from hornbook.layers.cache import KeyValueCache
from hornbook.layers.initialise import initialise
from hornbook.layers.model import Cache
from hornbook.models import rnn
from hornbook.models.rnn import RNN, RecurrentCache, RNNConfig


class AttentiveCache(RecurrentCache):
    """The recurrent state, and all states so far to look back at."""

    def __init__(self, batch: int, length: int, width: int, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(batch, length, device)
        self.past = KeyValueCache(1, batch, 1, length, width, device, dtype)

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        self.past.select(rows)

    def rewind(self, lengths: Tensor) -> None:
        super().rewind(lengths)
        self.past.rewind(lengths)

    def join(self, other: Self) -> None:
        super().join(other)
        self.past.join(other.past)

    def reserve(self, length: int) -> None:
        super().reserve(length)
        self.past.reserve(length)

    def copy(self, row: int) -> Self:
        new = copy.copy(self)
        new.past = self.past.copy(row)
        RecurrentCache.select(new, torch.tensor([row], device=self.tokens.device))
        return new

    @property
    def bytes(self) -> int:
        return super().bytes + self.past.bytes


class RNNAttention(RNN):
    """RNN, and attention over its own past states."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__(config)
        self.query = nn.Linear(config.dim, config.dim, bias=False)
        self.combine = nn.Linear(config.dim, config.dim, bias=False)
        self.kernel = fused
        initialise(self)

    def hidden(self, tokens: Tensor, cache: Cache | None = None, segments: Tensor | None = None) -> Tensor:
        """tokens (B,T) -> (B,T,D)."""
        assert cache is None or isinstance(cache, AttentiveCache)
        states = self.states(tokens, cache, segments)  # (B,T,D)
        query, key = self.query(states)[:, None], states[:, None]  # (B,1,T,D): one head
        if cache is not None:
            slots = cache.past.slots(tokens, segments)
            key, _ = cache.past.update(0, key, key, slots)
            seen = torch.arange(key.shape[2], device=tokens.device)
            mask = seen[None, None, None, :] <= (slots % cache.past.length)[:, None, :, None]
        elif segments is not None:
            mask = (segments[:, :, None] == segments[:, None, :]).tril()[:, None]
        else:
            mask = None
        key = key.to(query.dtype)
        mix = self.kernel(query, key, key, Where(mask, causal=True), 0.0)[:, 0]  # (B,T,D)
        return self.dropout(states + self.combine(mix))

    def flops_per_token(self, context: int) -> int:
        """Matrices, and 12 D for scores and mixing with each position seen, half of the row."""
        return super().flops_per_token(context) + 6 * context * self.config.dim

    def make_cache(self, batch: int, length: int) -> Cache:
        like = next(self.parameters())
        return AttentiveCache(batch, length, self.config.dim, like.device, like.dtype)


Model = RNNAttention

SIZES: dict[str, ModelConfig] = {
    "rnn-attention": RNNConfig("rnn_attention", dim=512, layers=1),
    "rnn-attention-tiny": RNNConfig("rnn_attention", dim=256, layers=1),
}

RECIPE = rnn.RECIPE

HF = {"model_type": "hornbook_rnn_attention", "architectures": ["HornbookRNNAttentionForCausalLM"]}

CONFIG = rnn.CONFIG

WEIGHTS = rnn.WEIGHTS | {
    "model.query.weight": "query.weight",
    "model.combine.weight": "combine.weight",
}
