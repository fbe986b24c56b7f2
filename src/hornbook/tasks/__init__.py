"""What models are asked to do, a file a task, found by its name: cnn_dailymail.py is `cnn-dailymail`.

A task's file has `task(source)`, which gives a `Task`: where its examples come from, how an output on one is judged,
and what those do who know nothing. The same object trains and evaluates. No model is run here.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from hornbook.errors import Package, UserError, unknown, visible
from hornbook.scoring.intervals import Figure
from hornbook.text.divided import files_at
from hornbook.text.files import form_of, read_json, records, require_cells
from hornbook.text.rows import columns_of

Message = Mapping[str, str]
"""role ('system', 'user', 'assistant') and content."""


@dataclass(frozen=True)
class Labelled:
    """Which class does the text belong to? Its output: label -> probability, always in the same order."""

    text: str
    label: str


@dataclass(frozen=True)
class Asked:
    """A text to be written: a summary, a translation, an answer. Its output: that text."""

    fields: Mapping[str, str]
    """What it is to be made from, by the names that the task's forms have for it: article, or context and question."""
    answer: str
    """What to learn to write."""
    answers: tuple[str, ...] = ()
    """All that are right; none for `answer` alone."""

    @property
    def references(self) -> tuple[str, ...]:
        """What an output is compared with."""
        return self.answers or (self.answer,)


@dataclass(frozen=True)
class Choice:
    """Which of the endings, each behind a space, continues the prompt? Its output: (log-probability in nats, number of
    tokens) of each ending."""

    prompt: str
    endings: tuple[str, ...]
    answer: int
    """The right ending's place."""


@dataclass(frozen=True)
class LastWord:
    """The last word of a passage, behind a space. Its output: (log-probability in nats, whether the likeliest tokens
    are that word)."""

    prompt: str
    word: str


@dataclass(frozen=True)
class Dialogue:
    """A conversation, of which the assistant's turns are learnt. Its output: (their log-probability in nats, their
    tokens)."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Preference:
    """Two answers to a conversation, one of them better. Its output: the model's own (log-probability of the
    chosen, of the rejected one), in nats."""

    messages: tuple[Message, ...]
    chosen: str
    rejected: str


Example = Labelled | Asked | Choice | LastWord | Dialogue | Preference
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Source:
    """Where examples come from: a file of the user's, or, without a path, the published set."""

    path: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """Role ('text', 'label', 'prompt', ...) -> the column that has it, where that is called otherwise."""
    target: str | None = None
    """Translation: the file with the other side, a line each."""
    seed: int = 0
    """By which a file's rows are divided into splits."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What a task alone understands: `protocol` of hellaswag, `from` and `to` of multi30k."""


Baseline = Callable[[Sequence[Any], Sequence[Any]], list[Any]]
"""(training examples, examples) -> their outputs."""


@dataclass(frozen=True)
class Task:
    """Examples of one kind, and how outputs on them are judged."""

    name: str
    kind: type
    """Of its examples: one of the classes above."""
    examples: Callable[[str], Iterator[Any]]
    """Those of a split. UserError for a split that is not there, and for data that cannot be had or read."""
    score: Callable[[Any, Any], dict[str, float]]
    """(example, output) -> marks by name, whose means are the task's figures."""
    headline: str
    """The figure by which models are chosen: the higher, the better."""
    splits: tuple[str, ...] = SPLITS
    figures: Callable[[Sequence[Any], Sequence[Any]], dict[str, Figure]] | None = None
    """(examples, outputs) -> scores that are no means over examples: BLEU, macro-F1."""
    signatures: Callable[[Sequence[Any], Sequence[Any]], dict[str, str]] | None = None
    """(examples, outputs) -> how such scores were reached, for figures whose name does not say it: BLEU."""
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    """By name."""
    needs: tuple[Package, ...] = ()
    """What its score and its figures cannot do without."""
    baselines_need: tuple[Package, ...] = ()
    """What its baselines cannot do without."""
    chance: float | None = None
    """The headline of one that guesses, where that is known beforehand."""
    plain: str = ""
    """Asked: what a model reads that only continues texts, with the fields' names in braces; the answer comes behind a
    space."""
    chat: str = ""
    """Asked: what the user says to a model that converses."""
    long: str = ""
    """Asked: the field that is cut where an example is too long."""
    cut: str = "head"
    """What of it is kept then: head, tail or head+tail."""
    quoted: bool = False
    """Asked: answers are parts of the long field, so that there is nothing to learn where one is cut away."""
    tokens: int = 128
    """Asked: of an answer, at most."""


def require_packages(task: Task, baselines: bool = True) -> None:
    """UserError, before any work, for a package that is not installed and that judging a task needs."""
    for package in (*task.needs, *(task.baselines_need if baselines else ())):
        package.require()


def task_names() -> list[str]:
    """The names of all tasks."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def open_task(name: str, source: Source | None = None) -> Task:
    """The task of that name; UserError for a name that is none, or a source that it cannot do with."""
    if name not in task_names():
        raise unknown("task", name, task_names())
    return import_module(f"{__name__}.{name.replace('-', '_')}").task(source or Source())


SIGNS: Sequence[tuple[str, tuple[tuple[str, ...], ...]]] = (
    ("chat", (("messages", "conversations"),)),
    ("multiple-choice", (("endings", "choices", "options"),)),
    ("instruct", (("instruction", "prompt"), ("output", "response", "completion"))),
    ("answer", (("question",), ("context",))),
    ("summarise", (("article", "document", "text"), ("highlights", "summary"))),
    ("translate", (("translation",),)),
    ("translate", (("source",), ("target",))),
    ("classify", (("text",), ("label",))),
)
"""Task, and the columns by which its files are known: one of each group."""


def task_of_file(path: str, columns: Mapping[str, str] | None = None, target: str | None = None) -> str:
    """The task that a user's file is for, by its columns; `columns` and `target` as in `Source`.

    Raises UserError where they suggest none.
    """
    given = columns or {}
    if target is not None:
        return "translate"
    if {"text", "label"} & set(given):
        return "classify"
    there = columns_at(path)
    if there == ["data"]:
        return "answer"
    names = set(there) | {role for role, column in given.items() if column in there}
    if {"chosen", "rejected"} <= names:
        return "prefer"
    for task, groups in SIGNS:
        if all(names.intersection(group) for group in groups):
            return task
    known = ", ".join(dict.fromkeys(["prefer", *(task for task, _ in SIGNS)]))
    raise UserError(
        visible(f"the columns of {path} ({', '.join(there)}) do not say what it is for: name its --task, of {known}")
    )


def columns_at(path: str) -> list[str]:
    """The columns of the first row in a file, or in a folder's first; `data` of SQuAD's JSON object."""
    file = files_at(path)[0][1]
    if form_of(file) == ".json":
        with suppress(UserError):  # several objects, a line each
            if is_squad(read_json(file)):
                return ["data"]
    first = next(records(file), None)
    if first is None:
        raise UserError(f"{file} has no rows")
    require_cells(first)
    return columns_of([first])


def is_squad(found: Any) -> bool:
    """Whether a JSON file's content is of SQuAD's form."""
    articles = found.get("data") if isinstance(found, dict) else None
    return isinstance(articles, list) and all(isinstance(a, dict) and "paragraphs" in a for a in articles)


def require(source: Source, name: str, roles: Sequence[str] = (), options: Sequence[str] = ()) -> None:
    """UserError for columns or options that a task does not know."""
    for given, known, kind in ((source.columns, roles, "column"), (source.options, options, "option")):
        for key in given:
            if not known:
                raise UserError(f"{name} takes no {kind}s, but {key}={given[key]} is given")
            if key not in known:
                raise unknown(f"{kind} of {name}", key, known)


def own_file(source: Source, name: str, holds: str) -> str:
    """The path of the user's file; UserError where none is given."""
    if source.path is None:
        raise UserError(f"{name} needs a file of yours: {holds}")
    return source.path


def no_file(source: Source, name: str, instead: str) -> None:
    """UserError where a file is given to a published set."""
    if source.path is not None:
        raise UserError(f"{name} is a published set, which takes no file: for {source.path} name the task {instead}")


def require_split(split: str, task: str, splits: Sequence[str]) -> None:
    """UserError for a split that a published set lacks."""
    if split not in splits:
        raise UserError(f"{task} has no {split} split with answers. It has: {', '.join(splits)}.")
