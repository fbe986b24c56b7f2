"""WikiText-103, raw: the articles of wikitext-103 with their own words, case and numbers."""

from hornbook.text.corpus import Corpus
from hornbook.text.wikitext import wikitext_corpus


def corpus() -> Corpus:
    """The corpus; nothing is read or downloaded before its first document is asked for."""
    return wikitext_corpus("wikitext-103-raw")
