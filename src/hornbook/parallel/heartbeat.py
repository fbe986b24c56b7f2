"""Which process is missing, and where it was last: each writes down where it is, and who waits too long reads it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch.distributed as dist

from hornbook.errors import WorkError

KEY = "hornbook/heartbeat"
MOST = 8
"""Others that a message names."""


class Beat(NamedTuple):
    """Where a process was, and since when."""

    step: int
    place: str
    since: float


class Heartbeat:
    """One process's, in the store that torchrun's rendezvous keeps. Does nothing where there is one process."""

    def __init__(self, rank: int = 0, size: int = 1, timeout: float = 0.0) -> None:
        self.rank, self.size, self.timeout = rank, size, timeout
        self.step = 0
        self.store = dist.distributed_c10d._get_default_store() if size > 1 else None
        self.beat("starting")

    def beat(self, place: str) -> None:
        """Say where this process is."""
        self.place, self.since = place, time.monotonic()
        if self.store is not None:
            self.store.set(f"{KEY}/{self.rank}", json.dumps([self.step, place, time.time()]))

    def at_step(self, step: int) -> None:
        """Say that step number `step` begins."""
        self.step = step
        self.beat("between steps")

    def at_rest(self) -> None:
        """Say that this process has ended well."""
        self.beat("finished")

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Within, others are waited for. WorkError with who is missing, where that takes too long. May be nested."""
        before = self.place
        self.beat(place)
        try:
            yield
        except RuntimeError as error:
            if not left_alone(error):
                raise
            raise WorkError(self.told(self.place, time.monotonic() - self.since, str(error))) from error
        self.beat(before)

    def told(self, place: str, waited: float, error: str) -> str:
        """What the others were doing when a collective failed: those first who have done nothing for longest."""
        late = " (it took longer than --timeout)" if self.timeout and waited >= 0.9 * self.timeout else ""
        others = sorted(self.others(), key=lambda other: (other[1].step, other[1].since))
        told = [f"process {rank}: {spoken(beat)}" for rank, beat in others[:MOST]]
        told += [f"{len(others) - MOST} more"] if len(others) > MOST else []
        return (
            f"process {self.rank} waited {waited:.0f} s at step {self.step}, {place}{late}, in vain. Last seen: "
            f"{'; '.join(told)}. ({' '.join(error.split())[:120]})"
        )

    def others(self) -> list[tuple[int, Beat]]:
        """Of whom something is known, with where they were."""
        found = []
        for rank in range(self.size):
            with contextlib.suppress(RuntimeError, ValueError):
                if self.store is not None and rank != self.rank:
                    found.append((rank, Beat(*json.loads(self.store.get(f"{KEY}/{rank}")))))
        return found


def left_alone(error: RuntimeError) -> bool:
    """Whether an error is what a collective raises when others do not come."""
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "Timed out"))


def spoken(beat: Beat) -> str:
    """Where a process was last, in words."""
    return f"step {beat.step}, {beat.place}, for {max(0.0, time.time() - beat.since):.0f} s"
