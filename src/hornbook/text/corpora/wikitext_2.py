"""WikiText-2, tokenised: 600 articles (2.1 million words) to train on, 60 and 60 to validate and test."""

from hornbook.text.corpus import Corpus
from hornbook.text.wikitext import wikitext_corpus


def corpus() -> Corpus:
    """The corpus; nothing is read or downloaded before its first document is asked for."""
    return wikitext_corpus("wikitext-2")
