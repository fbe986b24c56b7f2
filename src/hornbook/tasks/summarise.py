"""Texts and their summaries, from a file of the user's: rows with an article and its highlights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache

from hornbook.scoring.baselines import lead3
from hornbook.scoring.rouge import ANY_SCRIPT, ROUGE_SCORE, rouge_marks
from hornbook.scoring.words import mostly_beyond_ascii
from hornbook.tasks import Asked, Source, Task, own_file, require
from hornbook.text.divided import Divided
from hornbook.text.files import Row
from hornbook.text.rows import column_of, columns_of, read_rows, text_of

ARTICLE, SUMMARY = ("article", "document", "text"), ("highlights", "summary")
"""What the columns are called, most often."""
LOOKED_AT = 1000
"""Summaries that tell in which script all are."""


def task(source: Source) -> Task:
    """Summaries of the user's own."""
    require(source, "summarise", ("article", "summary"))
    path = own_file(source, "summarise", "rows with the columns article and highlights, or text and summary")

    def read_one(file: str) -> list[Asked | None]:
        return read(file, source.columns)

    found = Divided(path, read_one, article, source.seed, lacking="both an article and a summary")
    return summaries("summarise", found, cache(lambda: beyond_ascii(found.all)))


def summaries(
    name: str, examples: Callable[[str], Iterator[Asked]], any_script: Callable[[], bool] = lambda: False
) -> Task:
    """A task of summaries. Of a long article the beginning is kept, where reports say most.

    `any_script` says, of all examples, whether words that rouge-score does not know are to be compared.
    """
    return Task(
        name,
        Asked,
        examples,
        score=lambda example, output: rouge_marks(output, example.references, any_script()),
        headline="rougeLsum",
        signatures=lambda examples, outputs: {"rouge": ANY_SCRIPT} if any_script() else {},
        baselines={"lead-3": lambda train, examples: lead3(train, examples, "article")},
        needs=(ROUGE_SCORE,),
        plain="{article}\n\nSummary:",
        chat="Summarise this text in a few short sentences.\n\n{article}",
        long="article",
        cut="head",
        tokens=160,
    )


def beyond_ascii(examples: Sequence[Asked]) -> bool:
    """Whether rouge-score would throw most of the summaries away."""
    some = examples[:: -(-len(examples) // LOOKED_AT)]
    return mostly_beyond_ascii(text for example in some for text in example.references)


def article(example: Asked) -> str:
    return example.fields["article"]


def read(path: str, given: Mapping[str, str]) -> list[Asked | None]:
    """The pairs of a file; None for a row that lacks a side."""
    rows = read_rows(path)
    columns = columns_of(rows)
    text = column_of("article", given, ARTICLE, columns, path)
    summary = column_of("summary", given, SUMMARY, columns, path)
    return list(pairs(rows, text, summary))


def pairs(rows: Iterable[Row], article: str, summary: str) -> Iterator[Asked | None]:
    """An example a row; None for one that lacks a side."""
    for row in rows:
        text, short = text_of(row, article).strip(), text_of(row, summary).strip()
        yield Asked({"article": text}, short) if text and short else None
