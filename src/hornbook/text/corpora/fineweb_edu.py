"""FineWeb-Edu's sample of 10 billion tokens: 14 files, 28.5 GB to download, 9.67 million web pages."""

from hornbook.text.corpus import Corpus
from hornbook.text.fineweb import FILES, fineweb_corpus


def corpus() -> Corpus:
    """The corpus; nothing is read or downloaded before its first document is asked for."""
    return fineweb_corpus("fineweb-edu", len(FILES))
