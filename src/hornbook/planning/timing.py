"""Seconds of one optimiser step on GPUs: arithmetic at a stated share of the peak, and what devices send each other.

Bytes are those of rings: an all-gather or a reduce-scatter of S bytes over n devices sends S (n - 1) / n from each, an
all-reduce twice that. Sharded weights go in the number format of products, gradients in float32. What belongs to data
parallel training goes on behind the arithmetic, and only what is longer than that is waited for; tensor parallel layers
wait for each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from hornbook.planning.devices import NODE, Gpu
from hornbook.planning.layout import Layout

BACKWARD = 2 / 3
"""Share of the arithmetic that is the backward pass, behind which gradients are sent."""
AGAIN = 4 / 3
"""Arithmetic of a step with its blocks computed twice, as a share of one without."""


@dataclass(frozen=True)
class Work:
    """One step of one device: `batches` of `rows` rows."""

    flops: float
    """Of the model, for one token, forward and backward."""
    numbers: int
    """Parameters on the device before they are sharded."""
    rows: int
    batches: int
    context: int
    width: int
    layers: int
    recompute: bool = False
    whole: float = 0.0
    """Of `flops`, those that every device of a tensor parallel group does by itself: the head's."""
    precision: str = "bfloat16"

    @property
    def number(self) -> int:
        """Bytes of one that is multiplied."""
        return 4 if self.precision == "float32" else 2

    @property
    def tokens(self) -> int:
        """That one group reads in a batch."""
        return self.rows * self.context


@dataclass(frozen=True)
class Step:
    """Seconds of one step."""

    arithmetic: float
    tensor: float
    """Tensor parallel layers' all-reduces."""
    data: float
    """Weights gathered, gradients reduced."""
    waited: float
    """For the data parallel part, beyond what the arithmetic covers."""

    @property
    def seconds(self) -> float:
        return self.arithmetic + self.tensor + self.waited


def time_step(work: Work, gpu: Gpu, layout: Layout, mfu: float) -> Step:
    """`mfu`: the share of the peak that a device reaches by itself; operations done again do not count."""
    flops = work.whole + (work.flops - work.whole) / layout.tensor
    batch = work.tokens * flops * (AGAIN if work.recompute else 1.0) / (gpu.peak(work.precision) * mfu)
    tensor = tensor_seconds(work, gpu, layout)
    gathered = gather_seconds(work, gpu, layout)
    reduced = reduce_seconds(work, gpu, layout)
    waited = work.batches * max(0.0, gathered - batch) + max(0.0, reduced - BACKWARD * batch)
    n = work.batches
    return Step(n * batch, n * tensor, n * gathered + reduced, waited)


def speed(gpu: Gpu, devices: int) -> float:
    """Bytes a second of a ring through so many devices, next to each other."""
    return gpu.link if devices <= NODE else gpu.network


def around(devices: int) -> float:
    """Share of the bytes that each device sends."""
    return (devices - 1) / devices


def tensor_seconds(work: Work, gpu: Gpu, layout: Layout) -> float:
    """Two all-reduces of the stream a layer forward, two backward, and two where it is computed again."""
    times = 6 if work.recompute else 4
    sent = times * work.layers * 2 * work.tokens * work.width * work.number * around(layout.tensor)
    return sent / speed(gpu, layout.tensor)


def gather_seconds(work: Work, gpu: Gpu, layout: Layout) -> float:
    """Of one batch: weights gathered for the forward and for the backward pass, gradients divided among the shards."""
    n = layout.shards
    return (2 * work.number + 4) * work.numbers * around(n) / speed(gpu, n * layout.tensor)


def reduce_seconds(work: Work, gpu: Gpu, layout: Layout) -> float:
    """Of one step: gradients summed over the groups that hold the same shard."""
    copies = layout.groups // layout.shards
    sent = 2 * 4 * work.numbers / layout.shards * around(copies)
    return sent / speed(gpu, layout.devices)
