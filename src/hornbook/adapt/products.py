"""Products with a quantised matrix. These run anywhere and are what faster kernels are compared with.

A kernel is a function of x (..., columns) and the `Quantized` module, and takes its place there: `module.product`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from hornbook.adapt.quantized import Quantized


def product(x: Tensor, matrix: Quantized) -> Tensor:
    """x (..., columns) -> (..., rows), with some rows of the matrix in full at a time."""
    parts = [F.linear(x, matrix.decoded(rows).to(x.dtype)) for rows in matrix.pieces()]
    return torch.cat(parts, -1) if len(parts) > 1 else parts[0]


def rounded_product(x: Tensor, matrix: Quantized) -> Tensor:
    """LLM.int8() (Dettmers et al. 2022, section 3.2): activations are rounded to 8 bits too, each token by its largest.

    Columns of x in which any token is as large as the threshold, "outliers", are multiplied in float32 with the weights
    as they are kept. Sums of integers, 127^2 at most each, are exact in float32 up to 1,040 columns.
    """
    with torch.autocast(x.device.type, enabled=False):
        tokens = x.reshape(-1, matrix.columns).float()
        outlying = (tokens.abs() >= matrix.scheme.outliers).any(0)  # (columns,)
        rest = torch.where(outlying, 0.0, tokens)
        steps = rest.abs().amax(1, keepdim=True) / 127  # (tokens, 1)
        codes = (rest / torch.where(steps == 0, 1.0, steps)).round()
        columns = outlying.nonzero()[:, 0]
        parts = []
        for rows in matrix.pieces():
            weights, scales = matrix.codes[rows].float(), matrix.scales[rows].float().T  # (rows, columns), (1, rows)
            full = tokens[:, columns] @ weights[:, columns].T
            parts.append((codes @ weights.T * steps + full) * scales)
        return torch.cat(parts, -1).reshape(*x.shape[:-1], matrix.rows).to(x.dtype)


class Multiply(torch.autograd.Function):
    """A matrix's product, with the gradient in x, for which the weights are made anew instead of being kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Quantized) -> Tensor:
        ctx.matrix = matrix
        return matrix.product(x, matrix)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), matrix = gradients, ctx.matrix
        found = gradient.new_zeros(*gradient.shape[:-1], matrix.columns)
        for rows in matrix.pieces():
            found = found + gradient[..., rows] @ matrix.decoded(rows).to(gradient.dtype)
        return found, None
