"""Texts and their classes, from a file of the user's: rows with the columns text and label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from hornbook.errors import UserError
from hornbook.scoring.baselines import SKLEARN, majority, tfidf_logistic
from hornbook.scoring.classes import class_figures, class_marks
from hornbook.scoring.intervals import Figure
from hornbook.tasks import Labelled, Source, Task, own_file, require
from hornbook.text.divided import Divided
from hornbook.text.rows import column_of, columns_of, label_of, rank, read_rows, text_of

MOST = 1000
"""Classes; more of them are a column that is no label."""
PARTS = 5
"""Of the texts, where a baseline is asked about those that it learns from."""
Output = Mapping[str, float]
"""Label -> probability."""


def task(source: Source) -> Task:
    """Classes of the user's own."""
    require(source, "classify", ("text", "label"))
    path = own_file(source, "classify", "rows with a text and its label, as in reviews.csv --text review --label stars")

    def read_one(file: str) -> list[Labelled | None]:
        return read(file, source.columns)

    return labelled("classify", Divided(path, read_one, text, source.seed, lambda es: check(es, path)))


def labelled(name: str, examples: Callable[[str], Iterator[Labelled]]) -> Task:
    """A task of classes. What is too long keeps its beginning and its end, which tell more of a review's opinion than
    its beginning alone (Sun et al. 2019, "How to fine-tune BERT for text classification?", section 5.3.1)."""
    return Task(
        name,
        Labelled,
        examples,
        score=marks,
        headline="accuracy",
        figures=figures,
        baselines={
            "majority class": by_labels(majority),
            "TF-IDF + logistic regression": by_labels(from_others(tfidf_logistic)),
        },
        baselines_need=(SKLEARN,),
        cut="head+tail",
    )


def text(example: Labelled) -> str:
    return example.text


def read(path: str, given: Mapping[str, str]) -> list[Labelled | None]:
    """The examples of a file; None for a row without text."""
    rows = read_rows(path)
    columns = columns_of(rows)
    said = column_of("text", given, ("text",), columns, path)
    label = column_of("label", given, ("label",), columns, path)
    return [Labelled(words, label_of(row, label)) if (words := text_of(row, said)).strip() else None for row in rows]


def check(examples: Sequence[Labelled], path: str) -> None:
    """UserError where there are more classes than a class head can tell apart."""
    labels = class_names(examples)
    if len(labels) > MOST:
        raise UserError(
            f"{path} has {len(labels):,} different labels, more than {MOST:,}: name the column that has the class: "
            "--label COLUMN"
        )


def class_names(examples: Iterable[Labelled]) -> tuple[str, ...]:
    """The classes of the examples: whole numbers by their size, then all others by the alphabet."""
    return tuple(sorted({example.label for example in examples}, key=natural))


def natural(label: str) -> tuple[bool, int, str]:
    digits = label.removeprefix("-")
    number = digits.isascii() and digits.isdigit() and len(digits) < 300
    return (not number, int(label) if number else 0, label)


def marks(example: Labelled, output: Output) -> dict[str, float]:
    """As `class_marks`; a class that the model does not know has probability 0."""
    known = complete(output, [example.label])
    return class_marks(list(known.values()), list(known), example.label)


def figures(examples: Sequence[Labelled], outputs: Sequence[Output]) -> dict[str, Figure]:
    """As `class_figures`."""
    labels = class_names(examples)
    known = [complete(output, labels) for output in outputs]
    return class_figures([list(output.values()) for output in known], list(known[0]), [e.label for e in examples])


def complete(output: Output, labels: Sequence[str]) -> Output:
    """An output with all labels in it."""
    return {**output, **{label: 0.0 for label in labels if label not in output}}


Baseline = Callable[[Sequence[Labelled], Sequence[Labelled], Sequence[str]], Sequence[Sequence[float]]]
"""(training examples, examples, labels) -> (N,C) probabilities."""


def by_labels(baseline: Baseline) -> Callable[[Any, Any], list[dict[str, float]]]:
    """A baseline that gives (N,C) probabilities, as a task's."""

    def outputs(train: Sequence[Labelled], examples: Sequence[Labelled]) -> list[dict[str, float]]:
        labels = class_names(train)
        return [dict(zip(labels, row, strict=True)) for row in baseline(train, examples, labels)]

    return outputs


def from_others(baseline: Baseline) -> Baseline:
    """One that answers no text that it has learnt from: where it is asked about such, each part of the texts is
    answered by what has learnt from the other parts."""

    def outputs(
        train: Sequence[Labelled], examples: Sequence[Labelled], labels: Sequence[str]
    ) -> list[Sequence[float]]:
        known = {example.text for example in train}
        if not any(example.text in known for example in examples):
            return list(baseline(train, examples, labels))
        found: dict[int, Sequence[float]] = {}
        for number in range(PARTS):
            asked = [i for i, example in enumerate(examples) if part(example) == number]
            rest = [example for example in train if part(example) != number] if asked else []
            found |= zip(asked, baseline(rest, [examples[i] for i in asked], labels), strict=True)
        return [found[i] for i in range(len(examples))]

    return outputs


def part(example: Labelled) -> int:
    """Which part of the texts it is in; equal texts are in the same one."""
    return int.from_bytes(rank(example.text, 0)[:8], "big") % PARTS
