"""Translations by sacrebleu (Post 2018): BLEU and chrF of a whole set, 0 to 100, and the signatures that say how."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hornbook.errors import Package
from hornbook.scoring.intervals import Figure
from hornbook.scoring.words import mostly_without_spaces

SACREBLEU = Package("sacrebleu", "sacrebleu", "tasks", "BLEU and chrF")
RESAMPLES = 1000
MOST_DRAWN = 5_000_000
"""Sentences in all resamples together: sacrebleu holds the counts of all at once."""
NAMES = {"chinese": "zh", "japanese": "ja", "korean": "ko"}
"""The languages for which sacrebleu has words of its own, with their codes."""
INSTEAD = {"ja": "char", "ko": "intl"}
"""What finds the words of a language where sacrebleu's own way is not installed."""


def translation_figures(
    outputs: Sequence[str], references: Sequence[Sequence[str]], language: str = ""
) -> dict[str, Figure]:
    """bleu and chrf (chrF2) of outputs, each with one reference or more, with sacrebleu's own bootstrap intervals.

    Its seed is fixed, unless SACREBLEU_SEED says otherwise. An interval lies around the resamples' mean. `language` is
    that of the references, by code or name, if known.
    """
    return {name: figure(metric, outputs, references) for name, metric in metrics(references, language).items()}


def figure(metric: Any, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> Figure:
    draws = min(RESAMPLES, MOST_DRAWN // len(outputs)) if len(outputs) > 1 else 1
    found = metric.corpus_score(list(outputs), streams(references), n_bootstrap=draws)
    if draws < 2:
        return Figure(found.score)
    return Figure(found.score, found._mean - found._ci, found._mean + found._ci)


def translation_signatures(
    outputs: Sequence[str], references: Sequence[Sequence[str]], language: str = ""
) -> dict[str, str]:
    """sacrebleu's signatures of bleu and chrf on such a set: figures with equal ones can be compared."""
    found = {}
    for name, metric in metrics(references, language).items():
        metric.corpus_score(list(outputs), streams(references))
        found[name] = str(metric.get_signature())
    return found


def translation_marks(output: str, references: Sequence[str]) -> dict[str, float]:
    """sentence_chrf, 0 to 100: the lower, the worse a translation. Its mean is not the set's chrf."""
    return {"sentence_chrf": float(sentence_metric().sentence_score(output, list(references)).score)}


def streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """A list for every example -> a list for every reference, None where an example has fewer."""
    most = max(map(len, references))
    return [[some[place] if place < len(some) else None for some in references] for place in range(most)]


def metrics(references: Sequence[Sequence[str]], language: str) -> dict[str, Any]:
    """BLEU, and chrF with character 6-grams and no words (chrF2, Popović 2015), as sacrebleu's command has them."""
    return {"bleu": bleu(references, language), "chrf": sacrebleu().CHRF()}


def bleu(references: Sequence[Sequence[str]], language: str) -> Any:
    """BLEU with the words that sacrebleu has for a language; characters for any other without spaces between words."""
    short = language.lower().replace("_", "-").split("-")[0]
    code, make = NAMES.get(short, short), sacrebleu().BLEU
    if code in NAMES.values():
        try:
            return make(trg_lang=code)
        except RuntimeError:  # its dictionary is not installed
            return make(tokenize=INSTEAD[code])
    return make(tokenize="char") if mostly_without_spaces(text for some in references for text in some) else make()


@lru_cache(maxsize=1)
def sentence_metric() -> Any:
    return sacrebleu().CHRF()


def sacrebleu() -> Any:
    try:
        import sacrebleu
    except ImportError:
        raise SACREBLEU.missing() from None
    return sacrebleu
