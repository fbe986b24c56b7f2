"""What a check found, and when two sets of logits are the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

PASS, FAIL, WARN, SKIP = "PASS", "FAIL", "WARN", "SKIP"

ROUNDING = 1e-4
"""Largest gap between logits that are equal but for rounding. A sum of n float32 terms in another order differs by
about sqrt(n) 2^-24 of its size: 4e-6 for n = 4,096; over the 2 x 80 sub-layers of the largest models, whose errors add
as squares, 5e-5."""


@dataclass(frozen=True)
class Finding:
    """One line of the certificate."""

    verdict: str
    """PASS, FAIL, WARN (worth knowing, not wrong) or SKIP (does not apply, `meaning` says why)."""
    meaning: str
    figure: float | None = None
    """What was measured."""
    name: str = ""
    """The check, as the table of checks calls it."""

    @property
    def line(self) -> str:
        """For people."""
        number = self.figure
        figure = "" if number is None else f"{number:,.0f}" if number == number // 1 else f"{number:.4g}"
        return f"{self.verdict}  {self.name:<22} {figure:>10}  {self.meaning}"

    @property
    def summary(self) -> dict[str, str | float | None]:
        """For JSON, which has neither infinities nor NaN: such a figure is null, and `meaning` tells."""
        figure = self.figure if self.figure is not None and math.isfinite(self.figure) else None
        return {"name": self.name, "verdict": self.verdict, "figure": figure, "meaning": self.meaning}


class NotApplicable(Exception):
    """Raised by a check that has nothing to look at in this model; its words become a SKIP."""


def decide(figure: float, bound: float, right: str, wrong: str) -> Finding:
    """PASS with the words `right` where the figure is at most `bound`, else (and for NaN) FAIL with `wrong`."""
    return Finding(PASS, right, figure) if figure <= bound else Finding(FAIL, wrong, figure)


def gap(found: Tensor, wanted: Tensor) -> float:
    """Largest difference of two tensors of logits, in units of their deviation.

    The unit is at least a hundredth of the largest logit, whose own rounding is then 6e-6 units. Equal infinities are
    equal; NaN and unequal infinities are infinitely far apart.
    """
    found, wanted = found.float(), wanted.float()
    apart = torch.where(found == wanted, 0.0, (found - wanted).abs()).nan_to_num(math.inf, math.inf)
    finite = wanted[wanted.isfinite()]
    if not apart.numel() or not finite.numel():
        return math.inf
    unit = max(float(finite.std()), 0.01 * float(finite.abs().max()), 1e-30)
    return float(apart.max()) / unit
