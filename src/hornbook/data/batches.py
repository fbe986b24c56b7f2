"""The counter-based sampler: batch k is a pure function of (seed, k).

In every epoch the stream of N tokens is cut into windows of T targets, starting at an offset that the epoch draws, and
the windows come in a random order; so every token but the first is a target once an epoch. The two windows at the
stream's ends are shorter and padded on the right, with targets of -100; the last may hold nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hornbook.data.permutation import permute
from hornbook.data.shards import Shard
from hornbook.errors import UserError

NO_TARGET = -100


@dataclass(frozen=True)
class Batch:
    """tokens and targets (B,T) int64; segments (B,T) int64 or None where no mask is needed."""

    tokens: Tensor
    targets: Tensor
    segments: Tensor | None = None
    reference: Tensor | None = None
    """Pairs to prefer one of: the log-probability that a reference gives each target, (B,T) float32. The segments of a
    pair have numbers 2n - 1 (the better one) and 2n."""

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """What an objective is called with."""
        return tuple(x for x in (self.tokens, self.targets, self.segments, self.reference) if x is not None)

    @property
    def count(self) -> int:
        """What the loss is divided by: targets, or pairs."""
        if self.reference is not None and self.segments is not None:
            return int(self.segments.amax(1).sum()) // 2
        return int((self.targets != NO_TARGET).sum())

    def parts(self, rows: int) -> list[Batch]:
        """The batch cut into batches of at most `rows` rows."""
        if rows >= len(self.tokens):
            return [self]
        split = [[None] * -(-len(self.tokens) // rows) if x is None else x.split(rows) for x in vars(self).values()]
        return [Batch(*part) for part in zip(*split, strict=True)]

    def cut(self, rows: slice) -> Batch:
        """Some of the rows."""
        return Batch(*(None if x is None else x[rows] for x in vars(self).values()))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> Batch:
        """On `device`; to a GPU from pinned memory, so that nobody waits for the copy."""
        if device.type == "cpu":
            return self
        pinned = [x.pin_memory() if x is not None and device.type == "cuda" else x for x in vars(self).values()]
        return Batch(*(None if x is None else x.to(device, non_blocking=True) for x in pinned))  # type: ignore[arg-type]


class Batches:
    """Rows of `context` tokens from a shard. `apart` keeps documents from seeing each other, by a block mask."""

    def __init__(self, shard: Shard, batch: int, context: int, seed: int, apart: bool = False) -> None:
        if len(shard.tokens) - 1 < context:
            raise UserError(
                f"the training text has {len(shard.tokens) - 1} tokens, fewer than one block of {context}: "
                "use more text or a smaller --context"
            )
        self.shard, self.batch, self.context, self.seed, self.apart = shard, batch, context, seed, apart
        self.targets = len(shard.tokens) - 1
        self.windows = -(-self.targets // context) + 1  # one more than fit, because they start at an offset
        self.per_epoch, self.read_by_batch = self.windows / batch, batch / self.windows

    def get(self, k: int) -> Batch:
        """Batch number k = 0, 1, ..."""
        return self.rows(self.numbers(k))

    def numbers(self, k: int) -> NDArray[np.int64]:
        """The rows of a batch, counted through all epochs."""
        return k * self.batch + np.arange(self.batch, dtype=np.int64)

    def spans(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(the first input of each row, the input after its last target)."""
        epochs, places = np.divmod(numbers, self.windows)
        first, last = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.int64)
        for epoch in np.unique(epochs):
            mine = epochs == epoch
            shift = int(np.random.SeedSequence((self.seed, int(epoch), 1)).generate_state(1)[0]) % self.context
            window = permute(places[mine], self.windows, (self.seed, int(epoch)))
            first[mine] = np.maximum(window * self.context - shift, 0)
            last[mine] = np.minimum((window + 1) * self.context - shift, self.targets)
        return first, last

    def rows(self, numbers: NDArray[np.int64]) -> Batch:
        """A batch of the rows of these numbers."""
        first, last = self.spans(numbers)
        index = first[:, None] + np.arange(self.context + 1)
        padding = index[:, :-1] >= last[:, None]
        rows = self.shard.tokens[np.minimum(index, self.targets)].astype(np.int64)
        tokens, targets = rows[:, :-1], np.where(padding, NO_TARGET, rows[:, 1:])
        segments = None
        if self.apart:
            # The separator that opens a document belongs to it: the token at index starts[i] - 1 is document i's first.
            document = np.searchsorted(self.shard.starts, index[:, :-1] + 1, side="right")
            segments = torch.from_numpy(np.where(padding, 0, document))
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), segments)

    @property
    def far(self) -> bool:
        """Whether the tokens lie elsewhere, so that `foresee` is worth it."""
        return getattr(self.shard.tokens, "far", False)

    def foresee(self, k: int) -> None:
        """Begin to fetch what batch number k will read."""
        self.want(self.numbers(k))

    def want(self, numbers: NDArray[np.int64]) -> None:
        """Begin to fetch what these rows will read."""
        for first in self.spans(numbers)[0].tolist():
            self.shard.tokens.want(first, first + self.context + 1)  # type: ignore[attr-defined]

    def stop(self) -> None:
        """Give up what is being fetched."""
        if self.far:
            self.shard.tokens.stop()  # type: ignore[attr-defined]
