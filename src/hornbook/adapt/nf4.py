"""4-bit NormalFloat (Dettmers et al. 2023, "QLoRA", section 3): 16 levels that a normal distribution uses evenly.

number = scale x level, with the largest size in a group of 64 as its scale. The levels are quantiles of the normal
distribution, so chosen that 0 is one of them: seven below it, eight above, divided by the largest. With `double`, the
scales are kept as 8-bit integers around their mean, in blocks of 256 (the paper takes 8-bit floats).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from statistics import NormalDist

import torch
from torch import Tensor

from hornbook.adapt.packing import Part, Scheme, check_held, divisor, grouped, in_groups, pack, scale_for, unpack

BLOCK = 256
"""Rows whose scales, of the same group, share a mean and a step."""


def quantiles() -> list[float]:
    """The 16 levels, from -1 to 1, by the definition in the paper's released code.

    The outermost probability is short of 1 by half a part, the mean of a 16th and a 15th: (1/32 + 1/30) / 2.
    """
    last = 1 - (1 / 32 + 1 / 30) / 2

    def above(count: int) -> list[float]:
        step = (last - 0.5) / count
        return [NormalDist().inv_cdf(last - i * step) for i in range(count)]

    levels = sorted([*above(8), 0.0, *(-level for level in above(7))])
    return [level / levels[-1] for level in levels]


LEVELS = quantiles()
MIDDLES = [(low + high) / 2 for low, high in itertools.pairwise(LEVELS)]


def layout(rows: int, columns: int, scheme: Scheme) -> dict[str, Part]:
    """The tensors that a matrix is kept as."""
    groups, width = grouped(columns, scheme.group)
    codes = {"codes": Part((rows, width // 2), torch.uint8)}
    if not scheme.double:
        return codes | {"scales": Part((rows, groups), torch.float16)}
    shared = Part((-(-rows // BLOCK), groups), torch.float32, BLOCK)
    return codes | {"scales": Part((rows, groups), torch.int8), "steps": shared, "means": shared}


def encode(weight: Tensor, scheme: Scheme) -> dict[str, Tensor]:
    """(N, columns) float32 -> its parts. Each number moves by half the distance of two levels at most, times its scale.

    `double`: blocks begin at the first row; the largest numbers of a group move by half a step of its scale more.
    """
    numbers = in_groups(weight, scheme.group)
    largest = numbers.abs().amax(-1)
    parts = doubled(largest) if scheme.double else {"scales": scale_for(largest, 1)}
    found = numbers / divisor(scales_of({name: expanded(name, part, len(weight)) for name, part in parts.items()}))
    codes = torch.bucketize(found, torch.tensor(MIDDLES, device=weight.device))
    return {"codes": pack(codes.to(torch.uint8).flatten(1))} | parts


def doubled(scales: Tensor) -> dict[str, Tensor]:
    """Scales (N, groups) as 8-bit integers, with a mean and a step for each block of rows and each group."""
    check_held(scales.to(torch.float16))
    blocks = scales.split(BLOCK)
    means = torch.stack([block.mean(0) for block in blocks])
    steps = torch.stack([(block - block.mean(0)).abs().amax(0) / 127 for block in blocks])
    away = scales - expanded("means", means, len(scales))
    codes = (away / torch.where(steps == 0, 1.0, steps).repeat_interleave(BLOCK, 0)[: len(scales)]).round()
    return {"scales": codes.to(torch.int8), "steps": steps, "means": means}


def expanded(name: str, part: Tensor, rows: int) -> Tensor:
    """A part with an entry for each of `rows` rows."""
    return part if name == "scales" else part.repeat_interleave(BLOCK, 0)[:rows]


def scales_of(parts: Mapping[str, Tensor]) -> Tensor:
    """The scales (..., groups) float32, out of parts that have an entry for each row."""
    if "steps" not in parts:
        return parts["scales"].float()
    return (parts["means"] + parts["steps"] * parts["scales"].float()).clamp(min=0)


def decode(parts: Mapping[str, Tensor], scheme: Scheme) -> Tensor:
    """Parts of some rows (...) -> numbers (..., columns filled up to whole groups) float32."""
    scales, codes = scales_of(parts), unpack(parts["codes"])
    levels = torch.tensor(LEVELS, device=codes.device)[codes.long()]
    return (levels.unflatten(-1, (scales.shape[-1], -1)) * scales[..., None]).flatten(-2)
