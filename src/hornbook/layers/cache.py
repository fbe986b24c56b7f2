"""What a Transformer remembers of the tokens it has read."""

from __future__ import annotations

import torch
from torch import Tensor

from hornbook.errors import UserError


class KeyValueCache:
    """Preallocated keys and values of every layer.

    Row b's token number n lies in slot n, whatever padding came with it; padding is written to one spare slot behind
    the others, which nobody reads. So a slot is a position, and forgetting is only a smaller length.
    """

    def __init__(
        self, layers: int, batch: int, heads: int, length: int, width: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (layers, batch, heads, length + 1, width)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        self.length = length
        self.filled = 0  # at least max(lengths), known without asking the device

    def slots(self, tokens: Tensor, segments: Tensor | None) -> Tensor:
        """Reserve a slot for each of tokens (B,T): (B,T) int64, `length` (the spare) for padding."""
        if self.filled + tokens.shape[1] > self.length:
            self.filled = int(self.lengths.max())
        real = torch.ones_like(tokens) if segments is None else (segments != 0).long()
        slots = self.lengths[:, None] + real.cumsum(1) - 1
        self.lengths = self.lengths + real.sum(1)
        self.filled += tokens.shape[1] if segments is None else int(real.sum(1).max())
        if self.filled > self.length:
            raise UserError(f"the cache holds {self.length} tokens and was given {self.filled}: make a longer one")
        return torch.where(real.bool(), slots, self.length)

    def update(self, layer: int, keys: Tensor, values: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values (B,H,T,K) into their slots; return all that are filled, (B,H,S,K)."""
        where = slots[:, None, :, None].expand_as(keys)
        self.keys[layer].scatter_(2, where, keys.to(self.keys.dtype))
        self.values[layer].scatter_(2, where, values.to(self.values.dtype))
        return self.keys[layer, :, :, : self.filled], self.values[layer, :, :, : self.filled]

    def select(self, rows: Tensor) -> None:
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.lengths = self.lengths[rows]

    def rewind(self, lengths: Tensor) -> None:
        self.lengths = torch.minimum(self.lengths, lengths.to(self.lengths))
        self.filled = int(self.lengths.max()) if len(self.lengths) else 0

    @property
    def bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes
