"""The text of IMDb's film reviews (Maas et al. 2011), to learn the language of reviews from: no labels.

To train on are nine in ten reviews of the published training half and of the unlabelled ones, by their hash; to
validate on the held-out tenth of the training half, as in the task `imdb`; to test on the published test half, of
which nothing is trained on.
"""

from __future__ import annotations

from collections.abc import Iterator

from hornbook.text.corpus import Corpus
from hornbook.text.imdb import DATASET, LICENCE, is_held_out, reviews
from hornbook.text.rows import text_of


def corpus() -> Corpus:
    """The corpus; nothing is read or downloaded before its first document is asked for."""
    return Corpus("imdb-reviews", LICENCE, f"{DATASET} on the Hugging Face Hub, or $HORNBOOK_DATA/imdb", documents)


def documents(split: str) -> Iterator[str]:
    """The reviews of a split, each once."""
    tested = {text_of(row, "text") for row in reviews("test")}
    if split == "test":
        yield from sorted(tested)
        return
    seen = tested
    for part in ("train",) if split == "validation" else ("train", "unsupervised"):
        for row in reviews(part):
            text = text_of(row, "text")
            if text not in seen and is_held_out(text) is (split == "validation"):
                seen.add(text)
                yield text
