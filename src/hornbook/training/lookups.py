"""Tables whose gradients are the same numbers each time.

torch.compile adds the gradients of a table's rows by several threads at once, in whatever order they come: their last
bits differ from run to run, on CPUs and GPUs. torch's own kernel gives each row to one thread.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def ordered_lookups(model: nn.Module) -> None:
    """Have every table of `model` use that kernel, from outside."""
    for module in model.modules():
        if type(module) is nn.Embedding:
            module.forward = partial(looked_up, module)  # type: ignore[method-assign]


def looked_up(table: nn.Embedding, ids: Tensor) -> Tensor:
    """(...) ids -> (...,D)."""
    return Lookup.apply(table.weight, ids)


class Lookup(torch.autograd.Function):
    """Rows of (V,D), with `summed_rows` as the gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows = len(weight)
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (ids,) = ctx.saved_tensors
        return summed_rows(gradient, ids, ctx.rows), None


@torch.library.custom_op("hornbook::summed_rows", mutates_args=())
def summed_rows(gradient: Tensor, ids: Tensor, rows: int) -> Tensor:
    """Gradients (...,D) of rows that were looked up by ids (...) -> (rows,D), that of each row; opaque to
    torch.compile."""
    return torch.ops.aten.embedding_dense_backward(gradient, ids, rows, -1, False)


@summed_rows.register_fake
def _(gradient: Tensor, ids: Tensor, rows: int) -> Tensor:
    return gradient.new_empty(rows, gradient.shape[-1])
