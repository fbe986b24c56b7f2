"""One score for a model on several corpora: the mean of theirs, by the shares that they have in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def mean_summary(summaries: Sequence[dict[str, Any]], weights: Sequence[float]) -> dict[str, Any]:
    """What `Scores.summary` says of each corpus, as one: bits per byte are their mean by `weights`, which add up to 1,
    and so are the logarithms of perplexities; counts are added up. What one corpus lacks, all lack."""
    logs = {name: mean(summaries, weights, name, math.log) for name in ("word_perplexity", "token_perplexity")}
    bits = mean(summaries, weights, "bits_per_byte")
    return {
        "bits_per_byte": bits,
        "bits_per_byte_interval": interval(bits, summaries, weights),
        "word_perplexity": None if logs["word_perplexity"] is None else math.exp(logs["word_perplexity"]),
        "word_perplexity_interval": None,
        "token_perplexity": None if logs["token_perplexity"] is None else math.exp(logs["token_perplexity"]),
        **{name: total(summaries, name) for name in ("nats", "targets", "bytes", "words", "documents")},
        "context": summaries[0]["context"],
        "stride": summaries[0]["stride"],
    }


def mean(summaries: Sequence[dict[str, Any]], weights: Sequence[float], name: str, form: Any = float) -> float | None:
    """The mean of a figure in some form; None where one is missing or infinite."""
    values = [summary[name] for summary in summaries]
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    return sum(weight * form(value) for weight, value in zip(weights, values, strict=True))


def total(summaries: Sequence[dict[str, Any]], name: str) -> Any:
    values = [summary[name] for summary in summaries]
    return None if None in values else sum(values)


def interval(bits: float | None, summaries: Sequence[dict[str, Any]], weights: Sequence[float]) -> list[float] | None:
    """The 95 % interval of the mean: the corpora were drawn independently of each other, so the squares of what each
    may be off by, times its weight, add up."""
    ends = [summary["bits_per_byte_interval"] for summary in summaries]
    if bits is None or None in ends:
        return None
    far = [0.0, 0.0]
    for summary, (low, high), weight in zip(summaries, ends, weights, strict=True):
        middle = summary["bits_per_byte"]
        far = [math.hypot(far[0], weight * (middle - low)), math.hypot(far[1], weight * (high - middle))]
    return [bits - far[0], bits + far[1]]
