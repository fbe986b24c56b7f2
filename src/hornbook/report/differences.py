"""Two rungs compared document by document, from what their summaries keep of every document."""

from __future__ import annotations

from hornbook.evaluation.compare import paired_difference
from hornbook.report import wording
from hornbook.report.rung import Rung

Difference = tuple[float, float, float]
"""Bits per byte of one minus those of another, and the ends of its 95 % interval."""


def compare(a: Rung, b: Rung) -> Difference | None:
    """a minus b: below 0, a is better. None where they were not measured on the same documents, or on one only, and
    where one of them has no bits per byte."""
    if a.bits is None or b.bits is None:
        return None
    sizes = a.validation.get("document_bytes")
    nats = [r.validation.get("document_nats") or [] for r in (a, b)]
    if not sizes or sizes != b.validation.get("document_bytes") or any(len(n) != len(sizes) for n in nats):
        return None
    return paired_difference(nats[0], nats[1], sizes) if len(sizes) > 1 else None


def spelled(difference: Difference) -> str:
    return f"{wording.signed(difference[1])} to {wording.signed(difference[2])}"
