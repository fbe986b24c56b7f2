"""Norms, by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PlusOneRMSNorm(nn.Module):
    """RMSNorm whose scale is 1 + weight, so that decay pulls it to 1 (Gemma)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(...,D) -> (...,D)."""
        return F.rms_norm(x.float(), self.weight.shape, 1 + self.weight.float(), self.eps).to(x.dtype)


NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm, "rms_plus_one": PlusOneRMSNorm}


def make_norm(name: str, dim: int, eps: float) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019) over the last axis."""
    return NORMS[name](dim, eps=eps)
