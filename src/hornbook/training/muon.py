"""Muon (Jordan et al. 2024): the momentum of a matrix, made orthogonal, is its step.

The same numbers as torch.optim.Muon's, several times as fast on a CPU and with fewer kernels on a GPU: matrices of one
shape go through the iteration together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from hornbook.parallel.tensors import laid_out, local, parted, whole

COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of the polynomial of each iteration: steep at 0, near 1 from 0.7 to 1.2 (Jordan et al. 2024)."""
ITERATIONS = 5
MOST = 2**28
"""Numbers that go through it at once, unless a single matrix has more."""


class Muon(torch.optim.Optimizer):
    """For matrices only. Nesterov momentum 0.95; steps scaled to the size of AdamW's, with a decoupled decay.

    The scale, 0.2 sqrt(larger side), is that of Liu et al. 2025, "Muon is scalable", section 2.2.
    """

    def __init__(self, params: Iterable[Any], lr: float, weight_decay: float = 0.1, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            learnt = [p for p in group["params"] if p.grad is not None]
            updates = self.with_momentum(learnt, group["momentum"])
            torch._foreach_mul_([local(p) for p in learnt], 1 - group["lr"] * group["weight_decay"])
            for members in same_shapes(updates):
                stacked = orthogonal(torch.stack([whole(updates[i]) for i in members]))
                size = 0.2 * max(stacked.shape[-2:]) ** 0.5
                for i, step in zip(members, stacked.unbind(), strict=True):
                    local(learnt[i]).add_(local(parted(step, learnt[i])), alpha=-group["lr"] * size)

    def with_momentum(self, learnt: list[Tensor], momentum: float) -> list[Tensor]:
        """Nesterov's look-ahead gradients, bfloat16, laid out as the matrices are."""
        for p in learnt:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [local(self.state[p]["momentum_buffer"]) for p in learnt]
        gradients = [local(p.grad) for p in learnt if p.grad is not None]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, buffers, momentum)
        return [laid_out(part.bfloat16(), p) for part, p in zip(ahead, learnt, strict=True)]


def same_shapes(matrices: list[Tensor], most: int = MOST) -> list[list[int]]:
    """The places of equal shapes, together, as far as they have no more than `most` numbers."""
    places: dict[torch.Size, list[int]] = {}
    for i, matrix in enumerate(matrices):
        places.setdefault(matrix.shape, []).append(i)
    limits = {shape: max(1, most // shape.numel()) for shape in places}
    return [
        found[i : i + limits[shape]] for shape, found in places.items() for i in range(0, len(found), limits[shape])
    ]


def orthogonal(x: Tensor) -> Tensor:
    """x (G,m,n) bfloat16, by Newton and Schulz's iteration to about the nearest matrices whose singular values are 1.

    All products are as large as the smaller side allows.
    """
    a, b, c = COEFFICIENTS
    high = x.shape[-2] > x.shape[-1]
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x.mT @ x if high else x @ x.mT
        mixed = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        mixed.diagonal(dim1=-2, dim2=-1).add_(a)
        x = x @ mixed if high else mixed @ x
    return x
