"""What machines can do: `plan` and `bench`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from hornbook.config.checks import above_zero, counted, require, require_words


@dataclass(frozen=True)
class Plan:
    """Will it fit, how long, what will it cost? hornbook plan llama-3-8b --tokens 15T --gpu h100:512"""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A named size, or a run or Hugging Face folder or a config.json, of which only that is read."""
    tokens: str
    """How many are learnt from: 10B, 300M, 15e12."""
    gpu: str | None = None
    """Which GPUs and how many: h100:64, a100-80:8, rtx-4090. Default this machine, tried for about three seconds."""
    parallel: Literal["auto", "none", "data", "shard", "hybrid"] = "auto"
    """What devices divide, as in train: data nothing but rows, shard (ZeRO-3) weights, gradients and optimiser too,
    hybrid these inside a machine of eight; auto for the first of data and shard that fits."""
    tensor: int = 1
    """Devices that share each matrix."""
    context: int | None = None
    """Tokens in a row; default the model's."""
    batch: int | Literal["auto"] = "auto"
    """Rows that a device computes at once; auto for the most that fit and a step needs, on this machine for 16."""
    step_tokens: str | None = None
    """Tokens of an optimiser step on all devices, such as 0.5M; default 0.5M or a row each, here those of a batch."""
    optimizer: Literal["adamw", "adafactor", "muon"] | None = None
    """Default: the family's recipe, as in train."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    recompute: bool = False
    """Compute each block's activations again for its gradients: less memory, a third more work."""
    attention: Literal["auto", "fused", "written-out"] = "auto"
    """The kernel, which decides how much attention keeps; auto is fused, on this machine the fastest as in train."""
    mfu: float = 0.4
    """Share of a GPU's peak that is reached while it computes."""
    price: float | None = None
    """Dollars an hour for a device; default the table's in planning/devices.py."""
    vocab: int | None = None
    """Vocabulary of a named size; default its own, or 4,096 for one that takes its tokeniser's."""
    device: str | None = None
    """On this machine: cpu, cuda or mps; default the best there is."""
    json: bool = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        require_words(self)
        counted("--tokens", self.tokens)
        above_zero(self, "context", "vocab", "tensor")
        require(self, ("batch",), lambda x: x == "auto" or x > 0, "above 0, or auto")
        require(self, ("mfu",), lambda x: 0 < x <= 1, "a share above 0 and at most 1, such as 0.4")
        require(self, ("price",), lambda x: 0 <= x < math.inf, "0 or more")
        self.step  # noqa: B018 (says what is wrong with it)

    @property
    def count(self) -> int:
        """Tokens."""
        return counted("--tokens", self.tokens)

    @property
    def step(self) -> int:
        """Tokens of a step; 0 where that is left open."""
        return 0 if self.step_tokens is None else counted("--step-tokens", self.step_tokens)


@dataclass(frozen=True)
class Bench:
    """What this machine can do, in under two minutes: hornbook bench"""

    device: Annotated[str | None, arg(metavar="DEVICE")] = None
    """cpu, cuda or mps; default the best there is."""
    minutes: float = 2.0
    """Models that would not fit into so many minutes are skipped."""
    json: bool = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        above_zero(self, "minutes")
