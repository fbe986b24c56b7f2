"""What refuses a step: a loss or a gradient that is no number, or a loss that leaps."""

from __future__ import annotations

import math
import statistics

from hornbook.errors import WorkError

MEMORY = 100
"""Losses that a spike is judged by; before a fifth of them there are none."""
PATIENCE = 20
"""Steps in a row that may be refused."""


def fault(loss: float, norm: float, recent: list[float], spike: float) -> str | None:
    """What is wrong with a step, in words; None where nothing is. `spike` in standard deviations; 0 for any loss."""
    if not math.isfinite(loss):
        return f"the loss became {loss}"
    if not math.isfinite(norm):
        return f"the gradient's norm became {norm}"
    if spike and len(recent) >= MEMORY // 5:
        mean, deviation = statistics.fmean(recent), statistics.stdev(recent)
        if loss > mean + spike * deviation:
            return f"the loss leapt to {loss:.3f} (before: {mean:.3f}, deviation {deviation:.3f})"
    return None


def remember(recent: list[float], loss: float) -> list[float]:
    """The losses that the next one is judged by."""
    return [*recent, loss][-MEMORY:]


def refuse(reason: str, step: int, batch: int, skipping: bool = False) -> WorkError:
    """The error that ends a run for `reason`; `skipping`: although such steps are left out."""
    also = "" if skipping else ", or --guard skip to leave such steps out"
    return WorkError(
        f"{reason} at step {step} (batch {batch}){f', the {PATIENCE + 1}th in a row' if skipping else ''}; "
        f"checkpoints, if there are any yet, are whole. Try a lower --lr or more --warmup{also}"
    )
