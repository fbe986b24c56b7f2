"""What all kinds of quantisation are made of: groups, float16 scales, two numbers of 4 bits in a byte."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hornbook.errors import UserError

PAIRED = 32
"""Numbers whose 4-bit codes lie in 16 bytes: the first 16 in the low halves, the others in the high (as in GGUF)."""


class Scheme(NamedTuple):
    """How one matrix is kept; see `config.Quantization` for the fields."""

    kind: str
    group: int
    outliers: float = 0.0
    symmetric: bool = False
    double: bool = False


class Part(NamedTuple):
    """One of the tensors that a matrix is kept as."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    span: int = 1
    """Rows of the matrix that share one of this."""


def grouped(columns: int, group: int) -> tuple[int, int]:
    """How many groups a row has, and its width when the last one is filled up; `group` 0 stands for the whole row.

    A row that is shorter than a group is filled up to a multiple of 32 only.
    """
    width = min(group, -(-columns // PAIRED) * PAIRED) or columns
    groups = -(-columns // width)
    return groups, groups * width


def in_groups(weight: Tensor, group: int) -> Tensor:
    """(N, columns) -> (N, groups, numbers of a group); the last group is filled up with zeros."""
    groups, width = grouped(weight.shape[1], group)
    return F.pad(weight, (0, width - weight.shape[1])).unflatten(1, (groups, -1))


def scale_for(largest: Tensor, steps: float) -> Tensor:
    """The float16 scale with which `steps` of it reach `largest` (both at least 0), but for half a step at most.

    Rounded to the nearest float16, unless that is too small. UserError for NaN, and where float16 cannot hold it.
    """
    scale = (largest / steps).to(torch.float16)
    short = scale.float() * (steps + 0.5) < largest
    scale = torch.where(short, (scale.view(torch.int16) + 1).view(torch.float16), scale)
    check_held(scale)
    return scale


def check_held(numbers: Tensor) -> None:
    """UserError where not all became finite float16 numbers."""
    if not bool(numbers.isfinite().all()):
        raise UserError("a matrix holds NaN, or numbers that are too large to be quantised")


def divisor(scales: Tensor) -> Tensor:
    """Scales as float32 (N, groups, 1), with 1 in the place of 0: all numbers of such a group are 0."""
    return torch.where(scales == 0, 1.0, scales.float())[..., None]


def pack(codes: Tensor) -> Tensor:
    """Codes 0 to 15 (N, W) uint8, W a multiple of 32 -> (N, W / 2) bytes."""
    low, high = codes.unflatten(-1, (-1, 2, PAIRED // 2)).unbind(-2)
    return (low | high << 4).flatten(-2)


def unpack(pairs: Tensor) -> Tensor:
    """The way back: (..., W / 2) -> (..., W)."""
    pairs = pairs.unflatten(-1, (-1, PAIRED // 2))
    return torch.stack([pairs & 15, pairs >> 4], -2).flatten(-3)


def spread(scales: Tensor, codes: Tensor) -> Tensor:
    """Codes (..., W) times the scale of their group (..., groups), float32."""
    return (codes.unflatten(-1, (scales.shape[-1], -1)).float() * scales.float()[..., None]).flatten(-2)
