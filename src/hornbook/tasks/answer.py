"""Questions about texts, from a file of the user's: SQuAD's JSON, or rows with context, question and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hornbook.errors import UserError
from hornbook.scoring.answers import answer_marks
from hornbook.tasks import Asked, Source, Task, own_file, require
from hornbook.text.divided import Divided
from hornbook.text.files import Row, form_of, read_json, text_cell
from hornbook.text.rows import column_of, columns_of, find_column, read_rows, text_of

ROLES = {"context": ("context",), "question": ("question",), "answers": ("answers", "answer")}


class Question(NamedTuple):
    """An example, and the article that it is from: "" where that is not said."""

    title: str
    example: Asked


def task(source: Source) -> Task:
    """Questions of the user's own. Those about the same article are in the same split, or about the same text, where
    no articles are named or fewer than ten; those without an answer are left out."""
    require(source, "answer", tuple(ROLES))
    path = own_file(source, "answer", "SQuAD's JSON, or rows with the columns context, question and answers")

    def read_one(file: str) -> list[Question | None]:
        return read(file, source.columns)

    by_title = False

    def check(found: Iterable[Question]) -> None:
        nonlocal by_title
        titles = {question.title for question in found}
        by_title = "" not in titles and len(titles) >= 10

    def key(question: Question) -> str:
        return question.title if by_title else question.example.fields["context"]

    found = Divided(path, read_one, key, source.seed, check, "a context, a question and an answer")
    return answers("answer", lambda split: (question.example for question in found(split)))


def answers(name: str, examples: Callable[[str], Iterator[Asked]]) -> Task:
    """A task of questions. Of a long context the beginning is kept: a question whose answer stood behind it cannot be
    answered, and is not learnt."""
    return Task(
        name,
        Asked,
        examples,
        score=lambda example, output: answer_marks(output, example.references),
        headline="f1",
        plain="{context}\n\nQuestion: {question}\nAnswer:",
        chat="{context}\n\nAnswer with a few words from this text: {question}",
        long="context",
        cut="head",
        quoted=True,
        tokens=32,
    )


def read(path: str, given: Mapping[str, str]) -> list[Question | None]:
    """The questions of a file; None for one that lacks a part."""
    if form_of(path) == ".json" and not given:
        found = squad_of(path)
        if found is not None:
            return found
    rows = read_rows(path)
    columns = columns_of(rows)
    names = {role: column_of(role, given, known, columns, path) for role, known in ROLES.items()}
    title = find_column("title", {}, ("title",), columns)
    return [from_row(row, names, title) for row in rows]


def from_row(row: Row, names: Mapping[str, str], title: str | None) -> Question | None:
    """A row's question; its answers are a text, a list of texts, or, as on the Hub, {"text": [...]}."""
    context, question = (text_of(row, names[role]).strip() for role in ("context", "question"))
    texts = answer_texts(row.get(names["answers"]), names["answers"], row.where)
    about = text_of(row, title) if title else ""
    return made(about, context, question, texts)


def made(title: str, context: str, question: str, texts: Iterable[str]) -> Question | None:
    right = tuple(text for text in (text.strip() for text in texts) if text)
    if not (context and question and right):
        return None
    return Question(title, Asked({"context": context, "question": question}, right[0], right))


def answer_texts(cell: Any, column: str, where: str) -> list[str]:
    """The texts in a cell with answers."""
    if isinstance(cell, dict):
        cell = cell.get("text")
    entries = cell if isinstance(cell, list) else [cell]
    texts = [entry.get("text") if isinstance(entry, dict) else entry for entry in entries]
    return [text_cell(text, column, where) for text in texts]


def squad_of(path: str) -> list[Question | None] | None:
    """The questions of a file in SQuAD's form, {"data": [{"title", "paragraphs"}]}; None for another."""
    try:
        found = read_json(path)
    except UserError as error:
        if "Extra data" in str(error):  # rows, an object a line
            return None
        raise
    if not isinstance(found, dict) or "data" not in found:
        return None
    try:
        return list(squad_questions(found, Path(path).name))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not of SQuAD's form: {type(error).__name__} {error}") from None


def squad_questions(found: dict[str, Any], name: str) -> Iterator[Question | None]:
    for number, article in enumerate(found["data"], start=1):
        title = str(article.get("title", ""))
        where = f"article {number} of {name}"
        for paragraph in article["paragraphs"]:
            context = text_cell(paragraph["context"], "context", where).strip()
            for asked in paragraph["qas"]:
                question = text_cell(asked["question"], "question", where).strip()
                yield made(title, context, question, answer_texts(asked.get("answers", []), "answers", where))
