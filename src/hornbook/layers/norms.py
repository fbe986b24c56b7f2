"""Norms, by name."""

from __future__ import annotations

from torch import nn

NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}


def make_norm(name: str, dim: int, eps: float) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019) over the last axis."""
    return NORMS[name](dim, eps=eps)
