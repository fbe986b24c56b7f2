"""4-bit integers from 0 to 15 in groups, two in a byte: number = minimum + scale x code, as in GGUF's Q4_1.

`symmetric` has no minimum: number = scale x (code - 8), as in GGUF's Q4_0, where the number of largest size is given
code 0, and its sign to the scale. In groups of 32 GGUF's formats hold the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hornbook.adapt.packing import (
    Part,
    Scheme,
    check_held,
    divisor,
    grouped,
    in_groups,
    pack,
    scale_for,
    spread,
    unpack,
)


def layout(rows: int, columns: int, scheme: Scheme) -> dict[str, Part]:
    """The tensors that a matrix is kept as."""
    groups, width = grouped(columns, scheme.group)
    scales = Part((rows, groups), torch.float16)
    minimums = {} if scheme.symmetric else {"minimums": scales}
    return {"codes": Part((rows, width // 2), torch.uint8), "scales": scales} | minimums


def encode(weight: Tensor, scheme: Scheme) -> dict[str, Tensor]:
    """(N, columns) float32 -> its parts.

    Each number moves by half its group's scale at most, or by half the last place of its minimum in float16 where that
    is more; `symmetric` cuts off at 7 scales on the side that has not the largest number.
    """
    numbers = in_groups(weight, scheme.group)
    if scheme.symmetric:
        largest = numbers.gather(-1, numbers.abs().argmax(-1, keepdim=True))[..., 0]
        scales = scale_for(largest.abs(), 8) * torch.where(largest > 0, -1, 1).to(torch.float16)
        codes = (numbers / divisor(scales)).round() + 8
        return {"codes": pack(codes.clamp(0, 15).to(torch.uint8).flatten(1)), "scales": scales}
    low, high = numbers.aminmax(dim=-1)
    minimums = low.to(torch.float16)
    scales = scale_for((high - minimums.float()).clamp(min=0), 15)
    check_held(minimums)
    codes = ((numbers - minimums.float()[..., None]) / divisor(scales)).round()
    codes = pack(codes.clamp(0, 15).to(torch.uint8).flatten(1))
    return {"codes": codes, "scales": scales, "minimums": minimums}


def decode(parts: Mapping[str, Tensor], scheme: Scheme) -> Tensor:
    """Parts of some rows (...) -> numbers (..., columns filled up to whole groups) float32."""
    codes, scales = unpack(parts["codes"]), parts["scales"]
    if scheme.symmetric:
        return spread(scales, codes.to(torch.int8) - 8)
    numbers = spread(scales, codes).unflatten(-1, (scales.shape[-1], -1))
    return (numbers + parts["minimums"].float()[..., None]).flatten(-2)
