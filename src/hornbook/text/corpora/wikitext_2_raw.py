"""WikiText-2, raw: the same 720 articles as wikitext-2 with their own words, case and numbers."""

from hornbook.text.corpus import Corpus
from hornbook.text.wikitext import wikitext_corpus


def corpus() -> Corpus:
    """The corpus; nothing is read or downloaded before its first document is asked for."""
    return wikitext_corpus("wikitext-2-raw")
