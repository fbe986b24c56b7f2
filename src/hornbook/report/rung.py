"""What the report knows of one rung: its summary and its log, read with care, since any figure may be missing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rung:
    """One trained model: `summary` is its summary.json, `log` the lines of its metrics.jsonl."""

    name: str
    summary: dict[str, Any]
    log: list[dict[str, Any]]

    def figure(self, key: str) -> float | None:
        """A number of the summary, or of its validation; None where it is missing or no number."""
        for place in (self.summary, self.validation):
            if (value := number(place.get(key))) is not None:
                return value
        return None

    @property
    def validation(self) -> dict[str, Any]:
        return self.summary.get("validation") or {}

    @property
    def bits(self) -> float | None:
        """Bits per byte: None for the encoder, and where the tokeniser cannot restore the text."""
        return None if self.is_encoder else number(self.validation.get("bits_per_byte"))

    @property
    def interval(self) -> tuple[float, float] | None:
        ends = [number(x) for x in self.validation.get("bits_per_byte_interval") or ()]
        return (ends[0], ends[1]) if len(ends) == 2 and ends[0] is not None and ends[1] is not None else None

    @property
    def family(self) -> str:
        return str(self.summary.get("family") or self.name.replace("-", "_"))

    @property
    def is_encoder(self) -> bool:
        """It has no probability for a whole text, only for hidden tokens."""
        return "pseudo_perplexity" in self.summary

    @property
    def is_counted(self) -> bool:
        """It took no steps: one pass over the text and the counts are done."""
        return not self.is_encoder and "steps" not in self.summary and "tokens_per_second" not in self.summary

    @property
    def is_recurrent(self) -> bool:
        return self.family.startswith("rnn")

    @property
    def is_transformer(self) -> bool:
        return not (self.is_counted or self.is_encoder or self.is_recurrent)

    def curve(self, key: str, by: str = "seconds") -> list[tuple[float, float]]:
        """(seconds, value) for every log line that has this figure; or its step or tokens instead of seconds."""
        pairs = [(number(line.get(by)), number(line.get(key))) for line in self.log]
        return [(x, y) for x, y in pairs if x is not None and y is not None]


@dataclass(frozen=True)
class Remark:
    """A sentence about the figures, and the sentences that explain it."""

    says: str
    because: tuple[str, ...] = ()


def number(value: Any) -> float | None:
    """`value` where it is a number that can be shown on an axis."""
    ordinary = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if ordinary else None


def ranked(rungs: list[Rung]) -> list[Rung]:
    """The rungs that have bits per byte, best first."""
    return sorted((r for r in rungs if r.bits is not None), key=lambda r: r.bits or 0)
