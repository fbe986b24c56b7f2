"""The batches of one step at a time, made by a thread while the step before it is computed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch

from hornbook.data.batches import Batch

AHEAD = 8
"""Steps beyond the one being made of which is known what they will read, where that lies elsewhere."""


class Foresight(Protocol):
    """Has what batches read fetched beforehand."""

    def foresee(self, k: int) -> None:
        """Begin to fetch what batch number k will read, and return at once."""

    def stop(self) -> None:
        """Give up what is being fetched."""


@dataclass(frozen=True)
class Group:
    """What one optimiser step reads: here the rows of this process, in the counts those of all."""

    batches: list[Batch]
    targets: int
    """Counted before the batches went to their device."""
    tokens: int
    """Padding included."""


class Loader:
    """`get(step)` for steps in any order; quick where they come one after the other."""

    def __init__(
        self,
        batch: Callable[[int], Batch],
        accumulate: int,
        device: torch.device,
        share: Callable[[int], slice] | None = None,
        foresight: Foresight | None = None,
    ) -> None:
        """`share`: which of so many rows are this process's, where several have a part of each batch."""
        self.batch, self.accumulate, self.device, self.share = batch, accumulate, device, share
        self.foresight, self.foreseen = foresight, 0
        self.worker = ThreadPoolExecutor(1, "loader")
        self.ahead: tuple[int, Future[Group]] | None = None

    def get(self, step: int) -> Group:
        """The batches of step number `step` = 0, 1, ..."""
        if self.ahead is not None and self.ahead[0] == step:
            group = self.ahead[1].result()
        else:
            group = self.make(step)
        self.ahead = (step + 1, self.worker.submit(self.make, step + 1))
        if self.foresight is not None:
            self.worker.submit(self.foresee, self.foresight, step)
        return group

    def foresee(self, foresight: Foresight, step: int) -> None:
        """Have the batches of the steps after the next one fetched, each once."""
        end = (step + 2 + AHEAD) * self.accumulate
        for k in range(max(self.foreseen, (step + 2) * self.accumulate), end):
            foresight.foresee(k)
        self.foreseen = end

    def make(self, step: int) -> Group:
        batches = [self.batch(step * self.accumulate + i) for i in range(self.accumulate)]
        targets = sum(b.count for b in batches)
        tokens = sum(b.tokens.numel() for b in batches)
        if self.share is not None:
            batches = [b.cut(self.share(len(b.tokens))) for b in batches]
        return Group([b.to(self.device) for b in batches], targets, tokens)

    def close(self) -> None:
        """Let the thread go."""
        self.give_up()  # it may be waiting for a server
        self.worker.shutdown(wait=True, cancel_futures=True)
        self.give_up()

    def give_up(self) -> None:
        if self.foresight is not None:
            self.foresight.stop()
