"""Where a token stands: positions from segments, and rotary embeddings."""

from __future__ import annotations

import torch
from torch import Tensor


def positions_in_segments(segments: Tensor) -> Tensor:
    """segments (B,T) -> (B,T) int64: how far each token is from the start of its segment; padding counts by itself."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return index - torch.where(starts, index, 0).cummax(dim=1).values


def rotary_angles(positions: Tensor, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """positions (B,T) -> cosines and sines (B,1,T,K) float32 (Su et al. 2021, RoFormer, section 3.2).

    Channel i turns together with channel i + K/2 ("half-split"), the layout of Hugging Face's Llama.
    """
    # Rounded as Hugging Face rounds: at position 10,000 the last bit of a rate already turns a channel by 0.0006.
    rates = 1 / theta ** (torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width)
    angles = positions[:, None, :, None].float() * rates
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each channel pair of x (B,H,T,K) by its angle."""
    cos, sin = angles
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-right, left], dim=-1) * sin).to(x.dtype)
