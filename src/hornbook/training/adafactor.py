"""Adafactor (Shazeer and Stern 2018): AdamW's second moment of a matrix kept as a row and a column, no first moment.

With an absolute learning rate, as Hugging Face's Trainer runs it (and the tutorials with it); PyTorch's own scales the
rate by each tensor's size, so that the same number means something else there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

TINY = 1e-30
"""Added to squared gradients (their epsilon 1)."""


class Adafactor(torch.optim.Optimizer):
    """Steps of root mean square `lr` at most: their algorithm 4 with alpha_t = lr, d = 1 and beta2_t = 1 - t^-0.8."""

    def __init__(self, params: Iterable[Any], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.move(p, self.state[p], group["lr"], group["weight_decay"])

    def move(self, p: Tensor, state: dict[str, Any], lr: float, decay: float) -> None:
        """One step of one parameter."""
        state["step"] = state.get("step", torch.zeros(())) + 1
        keep = 1 - float(state["step"]) ** -0.8
        gradient = p.grad.float()  # type: ignore[union-attr]
        squared = gradient.square() + TINY
        if p.ndim >= 2:
            row = mean_of(state, "row", squared.mean(-1), keep)
            column = mean_of(state, "column", squared.mean(-2), keep)
            scale = (row / row.mean(-1, keepdim=True)).rsqrt()[..., None] * column.rsqrt()[..., None, :]
        else:
            scale = mean_of(state, "square", squared, keep).rsqrt()
        update = gradient * scale
        update /= (update.square().mean().sqrt()).clamp(min=1)
        p.mul_(1 - lr * decay).sub_(lr * update)


def mean_of(state: dict[str, Any], name: str, value: Tensor, keep: float) -> Tensor:
    """The running mean under that name, with `value` in it."""
    state[name] = torch.lerp(value, state[name], keep) if name in state else value * (1 - keep)
    return state[name]
