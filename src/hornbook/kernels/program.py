"""Programs for `hornbook_step`: a pass of a model over a few tokens as a list of operations, run in one call."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hornbook.kernels import KINDS, Layout, Matrix, address, finish, library

NORM, PRODUCT, KEEP, ATTEND, ACTIVATE = range(5)
"""Kinds of operations."""
NORMS = {"layer": 0, "rms": 1}
ACTIVATIONS = {"relu": 0, "relu2": 1, "gelu": 2, "gelu_tanh": 3, "silu": 4}
WIDEST = 256
"""Numbers of a head, a multiple of 16."""


class Operation(ctypes.Structure):
    """`Operation` of step.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("kind", "way", "source", "to", "by", "flows", "same", "add")),
        *((name, ctypes.c_int64) for name in ("layer", "width", "heads", "groups", "turned")),
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("eps", ctypes.c_double),
        ("matrix", Layout),
    )


class Pass(ctypes.Structure):
    """`Pass` of step.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values", "slots", "cosines", "sines")),
        *((name, ctypes.c_int64) for name in ("batch", "each", "rows", "length", "kind", "window")),
    )


class Program:
    """Operations on named places, each of which holds so many float32 numbers a token; the first one is the input."""

    def __init__(self, **places: int) -> None:
        self.places: dict[str, int] = {}
        self.room = 0
        for name, width in places.items():
            self.places[name], self.room = self.room, self.room + width
        self.width = next(iter(places.values()))
        self.operations: list[Operation] = []
        self.held: list[Any] = []
        """What pointers point to."""
        self.most = 1 << 30
        """Tokens of a pass up to which this is the faster way."""

    def norm(self, source: str, to: str, kind: str, weight: Tensor, bias: Tensor | None, eps: float) -> None:
        self.append(NORM, source, to, way=NORMS[kind], width=len(weight), weight=weight, bias=bias, eps=eps)

    def products(self, source: str, to: Mapping[str, Matrix], add: bool = False) -> None:
        """Products of one place with several matrices, each with its own place to go; with `add`, added to it."""
        for number, (name, matrix) in enumerate(to.items()):
            same = number > 0 and matrix.form == self.operations[-1].matrix.form
            flows = number < len(to) - 1
            self.append(PRODUCT, source, name, matrix=matrix.layout, add=add, flows=flows, same=same)
            self.held.append(matrix)
            self.most = min(self.most, matrix.most)

    def keep(self, keys: str, values: str, norm: Tensor | None, **heads: Any) -> None:
        """Write keys, after their norm and turned, and values to the cache. `heads`: layer, width, heads, groups,
        turned, eps."""
        self.append(KEEP, keys, keys, by=self.places[values], weight=norm, **heads)

    def attend(self, queries: str, to: str, norm: Tensor | None, **heads: Any) -> None:
        """Attention of the queries, after their norm and turned, to the cache. `heads` as for `keep`."""
        self.append(ATTEND, queries, to, weight=norm, **heads)

    def activate(self, source: str, to: str, kind: str, width: int, by: str | None = None) -> None:
        """The activation, times what lies at `by`, if anything."""
        self.append(ACTIVATE, source, to, way=ACTIVATIONS[kind], width=width, by=self.places[by or source])

    def append(
        self, kind: int, source: str, to: str, weight: Tensor | None = None, bias: Tensor | None = None, **rest: Any
    ) -> None:
        parts = [None if part is None else part.detach().float().contiguous() for part in (weight, bias)]
        self.held.append(parts)
        ends = {"source": self.places[source], "to": self.places[to]}
        weight_at, bias_at = map(address, parts)
        self.operations.append(Operation(kind=kind, weight=weight_at, bias=bias_at, **ends, **rest))

    def ready(self, result: str) -> Program:
        """End the program: what lies at `result` is what it finds."""
        self.result = self.places[result]
        self.list = (Operation * len(self.operations))(*self.operations)
        return self

    def run(
        self, x: Tensor, keys: Tensor, values: Tensor, slots: Tensor, angles: tuple[Tensor, Tensor] | None, window: int
    ) -> Tensor:
        """x (B,T,D), of the dtype of keys and values (layers, rows, groups, slots, width), -> (B,T,D).

        slots (B,T) int64: where each token's key and value go; the last slot stands for padding. Tokens see that slot
        and all before, or the last `window` of these where that is not 0. angles: cosines and sines (B,1,T,K).
        """
        x, slots = x.contiguous(), slots.contiguous()
        y = torch.empty_like(x)
        turns = (
            (None, None) if angles is None else tuple(part.expand(len(x), -1, -1, -1).contiguous() for part in angles)
        )
        sizes = (slots.numel(), slots.shape[1], keys.shape[1], keys.shape[3], KINDS[x.dtype], window)
        given = Pass(*map(address, (keys, values, slots, *turns)), *sizes)
        ends = (x.data_ptr(), y.data_ptr(), self.width, self.result, self.room)
        finish(library().hornbook_step(self.list, len(self.list), ctypes.byref(given), *ends))
        return y
