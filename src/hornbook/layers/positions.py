"""Where a token stands: positions from segments, sinusoidal and rotary embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hornbook.config import RopeScaling


def positions_in_segments(segments: Tensor) -> Tensor:
    """segments (B,T) -> (B,T) int64: how far each token is from the start of its segment; padding stands at 0."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return torch.where(segments == 0, 0, index - torch.where(starts, index, 0).cummax(dim=1).values)


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """positions (B,T) -> (B,T,D) float32 (Vaswani et al. 2017, section 3.5).

    Channels 2i and 2i + 1 are sine and cosine of position / 10000^(2i / D).
    """
    rates = 10000 ** -(torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) / dim)
    cos, sin = (both[:, 0, :, : len(rates)] for both in cosines_and_sines(positions, rates))
    return torch.stack([sin, cos], -1).flatten(2)[..., :dim]


def rotary_angles(
    positions: Tensor, width: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[Tensor, Tensor]:
    """positions (B,T) -> cosines and sines (B,1,T,K) float32 (Su et al. 2021, RoFormer, section 3.2).

    Channel i turns together with channel i + K/2 ("half-split"), the layout of Hugging Face's Llama.
    """
    # Rounded as Hugging Face rounds: at position 10,000 the last bit of a rate already turns a channel by 0.0006.
    rates = 1 / theta ** (torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width)
    if scaling is not None:
        rates = stretched(rates, scaling)
    return cosines_and_sines(positions, rates)


@torch.library.custom_op("hornbook::cosines_and_sines", mutates_args=())
def cosines_and_sines(positions: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    """positions (B,T), rates (K/2,) -> cosines and sines of the angles of all K channels, (B,1,T,K).

    An operation of its own, so that torch.compile computes it once a pass: drawn into the kernels that use it, it would
    be computed for every row, head, layer and direction.
    """
    angles = positions[:, None, :, None].float() * rates
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


@cosines_and_sines.register_fake
def _(positions: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    like = rates.new_empty(positions.shape[0], 1, positions.shape[1], 2 * rates.shape[0])
    return like, torch.empty_like(like)


def stretched(rates: Tensor, scaling: RopeScaling) -> Tensor:
    """Radians a position (K/2,), slowed down for a longer context."""
    if scaling.kind == "linear":
        return rates / scaling.factor
    assert scaling.kind == "llama3", scaling.kind
    turns = scaling.original / (2 * math.pi / rates)  # in the original context
    share = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return (1 - share) * rates / scaling.factor + share * rates


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each channel pair of x (B,H,T,K) by its angle; channels beyond the angles' stay as they are."""
    cos, sin = angles
    turning, still = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    left, right = turning.chunk(2, dim=-1)
    turned = (turning * cos + torch.cat([-right, left], dim=-1) * sin).to(x.dtype)
    return torch.cat([turned, still], dim=-1) if still.shape[-1] else turned
