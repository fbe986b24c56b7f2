"""How the learning rate moves: a warm-up in steps, then one of these shapes over the rest of the run."""

from __future__ import annotations

import math


def constant(progress: float) -> float:
    return 1.0


def linear(progress: float) -> float:
    """Straight down to 0."""
    return 1.0 - progress


def cosine(progress: float) -> float:
    """Half a cosine, down to a tenth (Loshchilov and Hutter 2017; the tenth as in GPT-3, Brown et al. 2020)."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))


def stable_decay(progress: float) -> float:
    """Warm-up-stable-decay: level, then straight down to 0 over the last 40 % (Hu et al. 2024, MiniCPM)."""
    return min(1.0, (1.0 - progress) / 0.4)


SCHEDULES = {"constant": constant, "linear": linear, "cosine": cosine, "wsd": stable_decay}


def rate_factor(name: str, step: int, warmup: int, progress: float) -> float:
    """The factor on the learning rate of step number `step` (from 0), `progress` (0 to 1) of the whole run done.

    Warm-up rises from 1/warmup; the shape runs over what comes after it.
    """
    if step < warmup:
        return (step + 1) / warmup
    warm = progress * warmup / step if step else 0.0  # the share of the run that warm-up took
    return SCHEDULES[name](min(1.0, (progress - warm) / (1.0 - warm)) if warm < 1 else 1.0)
