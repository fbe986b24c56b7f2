"""What a model must beat: outputs in a task's own form, from (training examples, examples), the same every time."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from hornbook.errors import Package
from hornbook.scoring.intervals import Numbers
from hornbook.scoring.sentences import first_sentences


class Labelled(Protocol):
    """An example with a text and its class."""

    @property
    def text(self) -> str: ...

    @property
    def label(self) -> str: ...


class Asked(Protocol):
    """An example with named fields."""

    @property
    def fields(self) -> Mapping[str, str]: ...


class Choice(Protocol):
    """An example with endings."""

    @property
    def endings(self) -> tuple[str, ...]: ...


def majority(train: Sequence[Labelled], examples: Sequence[Labelled], labels: Sequence[str]) -> list[list[float]]:
    """The labels' shares of the training set, for every example: the most frequent is chosen.

    One example of each label is added (Laplace), so that none is impossible.
    """
    counts = Counter(example.label for example in train)
    row = [(counts[label] + 1) / (len(train) + len(labels)) for label in labels]
    return [row] * len(examples)


SKLEARN = Package("sklearn", "scikit-learn", "tasks", "the baseline of words and logistic regression")
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)
"""Of the logistic regression, the inverse of its penalty."""
STRENGTH = 10.0
FEW = 100
"""Training examples under which a tenth of them says too little: STRENGTH is taken, and words that come once count."""


def tfidf_logistic(
    train: Sequence[Labelled], examples: Sequence[Labelled], labels: Sequence[str], seed: int = 0
) -> list[list[float]]:
    """Logistic regression on words and pairs of words, weighted by tf-idf (1 + log tf): (N,C) probabilities.

    The penalty is chosen on a tenth of the training set, then all of it is learnt. One example a class is enough;
    where there is only one class, or no word, it is `majority`.
    """
    vectors = vectorizer(len(train))
    try:
        known = vectors.fit_transform([example.text for example in train])
    except ValueError:  # there is no word
        return majority(train, examples, labels)
    truth = np.array([example.label for example in train])
    if len(set(truth)) < 2:
        return majority(train, examples, labels)
    strength = STRENGTH if len(train) < FEW else best_strength(known, truth, seed)
    model = fitted(strength, known, truth)
    found = model.predict_proba(vectors.transform([example.text for example in examples])) if examples else []
    places = [labels.index(label) for label in model.classes_]
    return in_columns(np.reshape(found, (len(examples), len(places))), places, len(labels)).tolist()


def in_columns(found: Numbers, places: Sequence[int], columns: int) -> Numbers:
    """The columns of `found` at their places among so many; 0 in the others."""
    chances = np.zeros((len(found), columns))
    chances[:, places] = found
    return chances


def best_strength(known: Any, truth: Any, seed: int) -> float:
    """That with which nine tenths of the training set give the best accuracy on the tenth; of equal ones the least."""
    order = np.random.default_rng(seed).permutation(len(truth))
    held, rest = order[: len(order) // 10], order[len(order) // 10 :]
    if len(set(truth[rest])) < 2:
        return STRENGTH
    scores = {c: fitted(c, known[rest], truth[rest]).score(known[held], truth[held]) for c in STRENGTHS}
    return max(scores, key=lambda c: scores[c])


def vectorizer(texts: int) -> Any:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise SKLEARN.missing() from None
    least = 1 if texts < FEW else 2
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=least, token_pattern=r"\w+", dtype=np.float32)


def fitted(strength: float, known: Any, truth: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")  # it may be most of the examples here
        return LogisticRegression(C=strength, max_iter=1000).fit(known, truth)


def lead3(train: Sequence[Asked], examples: Sequence[Asked], field: str = "") -> list[str]:
    """The first three sentences of a field: the longest one where none is named."""
    return [first_sentences(source(example, field), 3) for example in examples]


def copy_source(train: Sequence[Asked], examples: Sequence[Asked], field: str = "") -> list[str]:
    """A field as it is: the longest one where none is named."""
    return [source(example, field) for example in examples]


def source(example: Asked, field: str) -> str:
    return example.fields[field] if field else max(example.fields.values(), key=len)


NO, YES = -100.0, 0.0
"""Log-probabilities of endings that are not chosen, and of that which is, however long they are."""


def random_choice(train: Sequence[Choice], examples: Sequence[Choice], seed: int = 0) -> list[list[tuple[float, int]]]:
    """An ending drawn for each example, by every way of choosing among them."""
    draw = np.random.default_rng(seed)
    chosen = [int(draw.integers(len(example.endings))) for example in examples]
    return [
        [(YES if place == choice else NO, 1) for place in range(len(example.endings))]
        for example, choice in zip(examples, chosen, strict=True)
    ]
