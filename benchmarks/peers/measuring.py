"""What every peer is given: the shapes, the data, the clock, and the line of JSON that it answers with."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from peers.process import memory


@dataclass(frozen=True)
class Shape:
    """A GPT-2 of L layers of width D with H heads; a step is `rows` rows of T tokens."""

    layers: int
    dim: int
    heads: int
    context: int
    vocab: int
    rows: int = 16

    @property
    def tokens(self) -> int:
        return self.rows * self.context

    @property
    def flops_per_token(self) -> int:
        """6 (non-embedding matrices + V D) + 6 L T D."""
        matrices = 12 * self.layers * self.dim**2 + self.vocab * self.dim
        return 6 * matrices + 6 * self.layers * self.context * self.dim

    @property
    def parameters(self) -> int:
        """As GPT-2 counts them, without the position table."""
        return self.layers * (12 * self.dim**2 + 13 * self.dim) + 2 * self.dim + self.vocab * self.dim

    def __str__(self) -> str:
        parts = f"{self.layers} layers x {self.dim}, {self.heads} heads, T {self.context}, vocabulary {self.vocab:,}"
        return f"{parts}, {self.tokens:,} tokens a step"


SHAPES = {"A": Shape(4, 256, 4, 256, 8192), "B": Shape(6, 512, 8, 256, 50257), "tiny": Shape(2, 32, 2, 32, 4096, 4)}
"""The last one is for trying out."""


@dataclass
class Clock:
    """Times steps. The first `warmup` are left out; it is over after `steps` more, or `budget` seconds of them."""

    warmup: int
    steps: int
    budget: float
    seconds: list[float] = field(default_factory=list)

    def start(self) -> None:
        self.last = time.perf_counter()

    def tick(self) -> bool:
        """Note that a step is done; whether another one is wanted."""
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now
        measured = self.seconds[self.warmup :]
        return len(measured) < 2 or (len(measured) < self.steps and sum(measured) < self.budget)


def random_rows(shape: Shape, count: int = 1024) -> Tensor:
    """(count, T + 1) int64, the same for everybody."""
    return torch.randint(shape.vocab, (count, shape.context + 1), generator=torch.Generator().manual_seed(0))


def answer(clock: Clock, shape: Shape, model: nn.Module, positions: int, loss: float) -> None:
    """Print what was measured. `positions` are the parameters of a position table, which not every peer has.

    Parameters must be GPT-2's within 1 %, and the loss near ln V, as random tokens allow no other.
    """
    count = sum(p.numel() for p in model.parameters())
    assert abs(count - positions - shape.parameters) < 0.01 * shape.parameters, f"{count:,} parameters"
    expected = math.log(shape.vocab)
    assert 0.9 * expected < loss < 1.2 * expected, f"a loss of {loss:.2f} where ln V is {expected:.2f}"
    print(
        json.dumps(
            {
                "seconds": clock.seconds[clock.warmup :],
                "first_seconds": sum(clock.seconds[: clock.warmup]),
                "parameters": count,
                "positions": positions,
                "loss": loss,
                "peak_bytes": memory("VmHWM"),
                "resident_bytes": memory("VmRSS"),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "tcmalloc": "tcmalloc" in Path("/proc/self/maps").read_text(),
            }
        )
    )
