"""What a curve may run along: steps, tokens or seconds, each in the unit that suits its length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    key: str
    """What a line of metrics.jsonl calls it."""
    name: str
    unit: Callable[[float], tuple[float, str]]
    """The longest value -> what to divide by, and the name of the result."""


def clock(last: float) -> tuple[float, str]:
    """The unit of time that suits a run of `last` seconds."""
    if last <= 300:
        return 1, "seconds of training"
    return (60, "minutes of training") if last <= 18000 else (3600, "hours of training")


def steps(last: float) -> tuple[float, str]:
    if last < 10_000:
        return 1, "steps"
    return (1e3, "thousand steps") if last < 1e7 else (1e6, "million steps")


def tokens(last: float) -> tuple[float, str]:
    if last < 1e4:
        return 1, "tokens read"
    sizes = ((1e3, "thousand"), (1e6, "million"), (1e9, "billion"), (1e12, "trillion"))
    divisor, word = next((s for s in reversed(sizes) if last >= 2 * s[0]), sizes[0])
    return divisor, f"{word} tokens read"


SECONDS = Axis("seconds", "time", clock)
STEPS = Axis("step", "steps", steps)
TOKENS = Axis("tokens", "tokens", tokens)
