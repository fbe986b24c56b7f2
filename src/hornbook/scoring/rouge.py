"""ROUGE (Lin 2004) by Google's rouge-score, as figures for CNN/DailyMail are published: F1, words stemmed by Porter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hornbook.errors import Package
from hornbook.scoring.sentences import first_sentences, sentences

__all__ = ["first_sentences", "rouge_marks", "sentences"]

ROUGE_SCORE = Package("rouge_score", "rouge-score", "tasks", "ROUGE")
KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def rouge_marks(output: str, references: Sequence[str]) -> dict[str, float]:
    """F1 of rouge1, rouge2, rougeL and rougeLsum, each the best over the references, from 0 to 1.

    rougeLsum compares sentence by sentence; sentences are found by `sentences`, in outputs and references alike.
    """
    found = scorer().score_multi([lines(reference) for reference in references], lines(output))
    return {kind: float(found[kind].fmeasure) for kind in KINDS}


def lines(text: str) -> str:
    """One sentence a line, as rouge-score wants them; the other kinds do not mind."""
    return "\n".join(sentences(text))


@lru_cache(maxsize=1)
def scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ROUGE_SCORE.missing() from None
    return RougeScorer(list(KINDS), use_stemmer=True)
