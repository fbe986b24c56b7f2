"""Modules that hold a matrix as integers and scales, in the place of nn.Linear and nn.Embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Self

import torch
from torch import Tensor, nn

from hornbook.adapt import int4, int8, nf4
from hornbook.adapt.packing import Scheme
from hornbook.adapt.products import Multiply, product, rounded_product
from hornbook.layers.stand_in import StandIn

KINDS: Mapping[str, ModuleType] = {"int8": int8, "int4": int4, "nf4": nf4}
"""Each has `layout`, `encode` and `decode`."""
PIECE = 1 << 20
"""Numbers of a matrix that are in full at a time in a product."""


class Quantized(StandIn):
    """A matrix (rows, columns) in few bits. Its buffers are the parts of its kind: `codes`, `scales` and others.

    `product` multiplies with it, and may be any kernel with the arguments of `products.product`.
    """

    codes: Tensor
    scales: Tensor
    like: Tensor
    """Empty, and never stored: its dtype is that of the numbers which the matrix stands for."""
    elsewhere: Callable[[slice | Tensor], Tensor] | None = None
    """Rows of `codes`, where a kernel has taken these over: the buffer is empty then, and nothing can be saved."""

    def __init__(self, rows: int, columns: int, scheme: Scheme, like: Tensor) -> None:
        super().__init__()
        self.rows, self.columns, self.scheme = rows, columns, scheme
        self.parts = KINDS[scheme.kind].layout(rows, columns, scheme)
        for name, part in self.parts.items():
            self.register_buffer(name, torch.empty(part.shape, dtype=part.dtype, device=like.device))
        self.register_buffer("like", like.new_empty(0), persistent=False)
        self.product: Callable[[Tensor, Quantized], Tensor] = rounded_product if scheme.outliers else product

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As nn.Module has it, but that a change of number format (`.bfloat16()`) leaves the parts as they are."""
        before = {name: getattr(self, name) for name in self.parts}
        super()._apply(fn, recurse)
        for name, part in before.items():
            if (after := getattr(self, name)).dtype != part.dtype:
                setattr(self, name, part.to(after.device))
        return self

    def pieces(self, numbers: int | None = None) -> Iterator[slice]:
        """All rows, in pieces of about so many numbers, and of whole blocks where rows share a part."""
        numbers = PIECE if numbers is None else numbers
        least = max(part.span for part in self.parts.values())
        size = max(least, numbers // self.columns // least * least)
        return (slice(start, min(start + size, self.rows)) for start in range(0, self.rows, size))

    @torch.no_grad()
    def take(self, weight: Tensor) -> None:
        """Become `weight` (rows, columns), rounded to the dtype of this module first. UserError where it has NaN."""
        for rows in self.pieces(PIECE // 4):  # encoding takes several numbers for each
            numbers = weight[rows].to(self.like.device, self.like.dtype).float()
            for name, found in KINDS[self.scheme.kind].encode(numbers, self.scheme).items():
                first = rows.start // self.parts[name].span
                getattr(self, name)[first : first + len(found)] = found

    def decoded(self, rows: slice | Tensor) -> Tensor:
        """Rows in full, (..., columns) float32: a slice of them, or by number."""
        found = {}
        for name, part in self.parts.items():
            if name == "codes" and self.elsewhere is not None:
                found[name] = self.elsewhere(rows)
                continue
            if part.span > 1 and isinstance(rows, slice):
                rows = torch.arange(rows.start, rows.stop, device=self.codes.device)
            found[name] = getattr(self, name)[rows if part.span == 1 else rows // part.span]
        return KINDS[self.scheme.kind].decode(found, self.scheme)[..., : self.columns]

    @property
    def weight(self) -> Tensor:
        """The matrix in full, in the dtype of this module."""
        return torch.cat([self.decoded(rows).to(self.like.dtype) for rows in self.pieces()])

    @property
    def nbytes(self) -> int:
        """What the parts take; a bias is not among them."""
        return sum(getattr(self, name).nbytes for name in self.parts)

    def multiply(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return Multiply.apply(x, self)
        return self.product(x, self)

    def plain(self) -> nn.Module:
        """The module that this one stands for, in full."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.rows} x {self.columns}, {worded(self.scheme)}"


class QuantizedLinear(Quantized):
    """x (..., columns) -> (..., rows); the bias stays as it is."""

    def __init__(self, linear: nn.Linear, scheme: Scheme) -> None:
        """Of the shape of `linear`, on its device and with its bias; without numbers before `take`."""
        super().__init__(linear.out_features, linear.in_features, scheme, linear.weight)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        y = self.multiply(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def plain(self) -> nn.Linear:
        linear = nn.Linear(self.columns, self.rows, bias=False, device="meta")
        linear.weight, linear.bias = nn.Parameter(self.weight), self.bias
        return linear.train(self.training)


class QuantizedEmbedding(Quantized):
    """A table: ids (...) -> their rows (..., columns). A tied head multiplies with it."""

    looked_up = True

    def __init__(self, table: nn.Embedding, scheme: Scheme) -> None:
        """Of the shape of `table`, on its device; without numbers before `take`."""
        super().__init__(table.num_embeddings, table.embedding_dim, scheme, table.weight)

    def forward(self, ids: Tensor) -> Tensor:
        return self.decoded(ids).to(self.like.dtype)

    def plain(self) -> nn.Embedding:
        table = nn.Embedding(self.rows, self.columns, device="meta")
        table.weight = nn.Parameter(self.weight)
        return table.train(self.training)


def stand_in(module: Any, scheme: Scheme) -> Quantized:
    """What is to stand in the place of an nn.Linear or nn.Embedding."""
    made = QuantizedLinear(module, scheme) if isinstance(module, nn.Linear) else QuantizedEmbedding(module, scheme)
    made.train(module.training)
    return made


def worded(scheme: Scheme) -> str:
    """A scheme as people say it: int4 in groups of 32, symmetric."""
    told = [f"{scheme.kind} {f'in groups of {scheme.group}' if scheme.group else 'by rows'}"]
    told += [f"outliers from {scheme.outliers:g}"] if scheme.outliers else []
    told += ["symmetric"] if scheme.symmetric and scheme.kind == "int4" else []
    told += ["scales in 8 bits"] if scheme.double and scheme.kind == "nf4" else []
    return ", ".join(told)
