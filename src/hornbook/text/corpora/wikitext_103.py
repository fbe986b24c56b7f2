"""WikiText-103, tokenised: 28,475 articles (103 million words); its validation and test are those of WikiText-2."""

from hornbook.text.corpus import Corpus
from hornbook.text.wikitext import wikitext_corpus


def corpus() -> Corpus:
    """The corpus; nothing is read or downloaded before its first document is asked for."""
    return wikitext_corpus("wikitext-103")
