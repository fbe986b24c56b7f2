"""ROUGE (Lin 2004) by Google's rouge-score, as figures for CNN/DailyMail are published: F1, words stemmed by Porter.

Its words are of a to z and 0 to 9. A set of texts that would mostly be thrown away by that is compared by the words of
`scoring/words.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hornbook.errors import Package
from hornbook.scoring.sentences import sentences
from hornbook.scoring.words import words

ROUGE_SCORE = Package("rouge_score", "rouge-score", "tasks", "ROUGE")
KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
ANY_SCRIPT = (
    "words of any script, not stemmed; characters, where a script has no spaces between words (rouge-score's own words "
    "are of a-z and 0-9, which most of the references are not)"
)
"""How ROUGE was reached where it is not as published."""


def rouge_marks(output: str, references: Sequence[str], any_script: bool = False) -> dict[str, float]:
    """F1 of rouge1, rouge2, rougeL and rougeLsum, each the best over the references, from 0 to 1.

    rougeLsum compares sentence by sentence; sentences are found by `sentences`, in outputs and references alike. With
    `any_script`, words are those of `scoring/words.py`.
    """
    found = scorer(any_script).score_multi([lines(reference) for reference in references], lines(output))
    return {kind: float(found[kind].fmeasure) for kind in KINDS}


def lines(text: str) -> str:
    """One sentence a line, as rouge-score wants them; the other kinds do not mind."""
    return "\n".join(sentences(text))


class AnyScript:
    """What cuts texts into words, in the form that rouge-score asks for."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@lru_cache(maxsize=2)
def scorer(any_script: bool = False) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ROUGE_SCORE.missing() from None
    return RougeScorer(list(KINDS), use_stemmer=True, tokenizer=AnyScript() if any_script else None)
