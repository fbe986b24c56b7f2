"""8-bit integers from -127 to 127, and a float16 scale for each group: number = scale x code.

In groups of 32 (8.5 bits a weight) GGUF's Q8_0 holds the same numbers; by whole rows it is the weights' half of
LLM.int8() (Dettmers et al. 2022, section 2: absmax quantisation, vector-wise).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hornbook.adapt.packing import Part, Scheme, divisor, grouped, in_groups, scale_for, spread


def layout(rows: int, columns: int, scheme: Scheme) -> dict[str, Part]:
    """The tensors that a matrix is kept as."""
    groups, width = grouped(columns, scheme.group)
    return {"codes": Part((rows, width), torch.int8), "scales": Part((rows, groups), torch.float16)}


def encode(weight: Tensor, scheme: Scheme) -> dict[str, Tensor]:
    """(N, columns) float32 -> its parts. Each number moves by half its group's scale at most."""
    numbers = in_groups(weight, scheme.group)
    scales = scale_for(numbers.abs().amax(-1), 127)
    codes = (numbers / divisor(scales)).round().clamp(-127, 127).to(torch.int8)
    return {"codes": codes.flatten(1), "scales": scales}


def decode(parts: Mapping[str, Tensor], scheme: Scheme) -> Tensor:
    """Parts of some rows (...) -> numbers (..., columns filled up to whole groups) float32."""
    return spread(parts["scales"], parts["codes"])
