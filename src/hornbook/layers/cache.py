"""What models remember of the tokens they have read: keys and values, or the tokens themselves."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor, nn

from hornbook.errors import UserError


class KeyValueCache:
    """Preallocated keys and values of every layer.

    Row b's token number n lies in slot n, whatever padding came with it; padding is written to one spare slot behind
    the others, which nobody reads. So a slot is a position, and forgetting is only a smaller length. There may be
    memory for more rows than there are: a row that comes takes the next place, and only rows that move are copied.
    """

    def __init__(
        self, layers: int, batch: int, heads: int, length: int, width: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (layers, batch, heads, length + 1, width)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        self.filled = 0  # at least max(lengths), known without asking the device

    @property
    def length(self) -> int:
        """Tokens that a row can hold."""
        return self.keys.shape[3] - 1

    def slots(self, tokens: Tensor, segments: Tensor | None) -> Tensor:
        """Reserve a slot for each of tokens (B,T): (B,T) int64, `length` (the spare) for padding."""
        if self.filled + tokens.shape[1] > self.length:
            self.filled = int(self.lengths.max())
        real = torch.ones_like(tokens) if segments is None else (segments != 0).long()
        slots = self.lengths[:, None] + real.cumsum(1) - 1
        lengths = self.lengths + real.sum(1)
        filled = self.filled + tokens.shape[1] if segments is None else int(lengths.max())
        if filled > self.length:
            raise UserError(f"the cache holds {self.length} tokens and was given {filled}: make a longer one")
        self.lengths, self.filled = lengths, filled
        return torch.where(real.bool(), slots, self.length)

    def update(self, layer: int, keys: Tensor, values: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values (B,H,T,K) into their slots; return all that are filled, (B,H,S,K)."""
        rows = len(keys)
        where = slots[:, None, :, None].expand_as(keys)
        self.keys[layer, :rows].scatter_(2, where, keys.to(self.keys.dtype))
        self.values[layer, :rows].scatter_(2, where, values.to(self.values.dtype))
        return self.keys[layer, :rows, :, : self.filled], self.values[layer, :rows, :, : self.filled]

    def select(self, rows: Tensor) -> None:
        places = torch.arange(len(rows), device=rows.device)
        if len(rows) > self.keys.shape[1]:
            self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        else:
            moved = rows != places
            self.keys[:, places[moved], :, : self.filled] = self.keys[:, rows[moved], :, : self.filled]
            self.values[:, places[moved], :, : self.filled] = self.values[:, rows[moved], :, : self.filled]
        self.lengths = self.lengths[rows]

    def rewind(self, lengths: Tensor) -> None:
        self.lengths = torch.minimum(self.lengths, lengths.to(self.lengths))
        self.filled = int(self.lengths.max()) if len(self.lengths) else 0

    def join(self, other: Self) -> None:
        before, rows, seen = len(self.lengths), len(self.lengths) + len(other.lengths), other.filled
        held = self.keys.shape[1]
        self.make_room(held if rows <= held else 1 << (rows - 1).bit_length(), max(self.length, seen))
        self.keys[:, before:rows, :, :seen] = other.keys[:, : len(other.lengths), :, :seen]
        self.values[:, before:rows, :, :seen] = other.values[:, : len(other.lengths), :, :seen]
        self.lengths = torch.cat([self.lengths, other.lengths])
        self.filled = max(self.filled, seen)

    def reserve(self, length: int) -> None:
        self.make_room(self.keys.shape[1], max(length, self.length))

    def make_room(self, rows: int, length: int) -> None:
        """Move to memory for so many rows and tokens, where this is not it already."""
        layers, held, heads, slots, width = self.keys.shape
        if (rows, length + 1) == (held, slots):
            return
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(layers, rows, heads, length + 1, width)
            new[:, : len(self.lengths), :, : self.filled] = old[:, : len(self.lengths), :, : self.filled]
            setattr(self, name, new)

    def copy(self, row: int) -> Self:
        new = object.__new__(type(self))
        new.lengths = self.lengths[row : row + 1].clone()
        new.filled = int(new.lengths)
        where = (slice(None), slice(row, row + 1), slice(None), slice(new.filled + 1))
        new.keys, new.values = self.keys[where].clone(), self.values[where].clone()
        return new

    @property
    def bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


class TokenCache:
    """The tokens read so far."""

    def __init__(self, batch: int, length: int, device: torch.device) -> None:
        self.tokens = torch.zeros(batch, length, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)

    def last(self, count: int) -> Tensor:
        """(B, count): the latest tokens of each row, -1 where it has fewer."""
        places = self.lengths[:, None] - count + torch.arange(count, device=self.tokens.device)
        if not self.tokens.shape[1]:
            return torch.full_like(places, -1)
        return torch.where(places >= 0, self.tokens.gather(1, places.clamp(min=0)), -1)

    def append(self, rows: Tensor, lengths: Tensor) -> None:
        """Note the first lengths[b] of rows (B,T) as read."""
        step = torch.arange(rows.shape[1], device=rows.device)
        real = step < lengths[:, None]
        if bool((self.lengths + lengths > self.tokens.shape[1]).any()):
            raise UserError(f"the cache holds {self.tokens.shape[1]} tokens and was given more: make a longer one")
        self.tokens[torch.nonzero(real)[:, 0], (self.lengths[:, None] + step)[real]] = rows[real]
        self.lengths = self.lengths + lengths

    def select(self, rows: Tensor) -> None:
        self.tokens, self.lengths = self.tokens[rows], self.lengths[rows]

    def rewind(self, lengths: Tensor) -> None:
        self.lengths = torch.minimum(self.lengths, lengths.to(self.lengths))

    def join(self, other: Self) -> None:
        self.reserve(other.tokens.shape[1])
        other.reserve(self.tokens.shape[1])
        self.tokens, self.lengths = (torch.cat([getattr(c, n) for c in (self, other)]) for n in ("tokens", "lengths"))

    def reserve(self, length: int) -> None:
        if (more := length - self.tokens.shape[1]) > 0:
            self.tokens = nn.functional.pad(self.tokens, (0, more))

    def copy(self, row: int) -> Self:
        new = copy.copy(self)
        new.select(torch.tensor([row], device=self.tokens.device))
        return new

    @property
    def bytes(self) -> int:
        return self.tokens.nbytes
