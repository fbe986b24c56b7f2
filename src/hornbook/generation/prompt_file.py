"""A file of prompts in, a file of answers out: many at once, and no answer is made twice."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hornbook.config import Generate
from hornbook.errors import PassingError, UserError
from hornbook.generation.answers import Answer
from hornbook.generation.drafts import drafter
from hornbook.generation.engine import Engine
from hornbook.generation.sampling import STUCK
from hornbook.generation.stream import asked
from hornbook.layers.model import LanguageModel
from hornbook.lock import locked
from hornbook.log import Log, read_lines
from hornbook.progress import Bar
from hornbook.text.files import is_rows, read_documents

BEGINNING = b'{"number": 0, "sample": 0, '
"""Of the first line, by which a torn one is told from something else."""


class Line(NamedTuple):
    """One line of the answers to come."""

    number: int
    """Of the prompt, from 0."""
    sample: int
    prompt: str


def answer_file(model: LanguageModel, settings: Generate) -> tuple[int, int]:
    """Answer the prompts of `settings.file`; the numbers of answers in `settings.out` and of refusals among them.

    Lines stand in the order of the prompts, each written as soon as it and all before it are done, so that a stopped
    command carries on behind the last. UserError for a file of answers to something else.
    """
    assert settings.file is not None
    assert settings.out is not None
    lines = wanted(settings)
    path, mark = Path(settings.out), fingerprint(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = Log(path.parent, path.name)
    hold(log)
    try:
        refuse_others(path, read_lines(path), lines, mark)
        log.cut(lambda value: True)
        kept = read_lines(path)  # without a torn one
        refused = sum("error" in value for value in kept)
        with Bar("generating") as bar:
            for number, value in enumerate(answered(model, lines[len(kept) :], settings, bar), start=len(kept) + 1):
                log.write(value | {"settings": mark})
                refused += "error" in value
                bar.show(number, len(lines))
        log.sync()
    finally:
        log.close()
    return len(lines), refused


def hold(log: Log) -> None:
    """Have the file for this process alone, until it ends. UserError where another has it, or it cannot be written."""
    try:
        free = locked(log.opened())
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise PassingError(f"cannot write to {log.path}: {error.strerror or error}") from error
        free = True
    if not free:
        raise UserError(f"{log.path} is in use by another process: wait until it ends, or choose another --out")


def check_files(settings: Generate) -> None:
    """UserError, before a model is loaded, for prompts that cannot be read and answers to something else."""
    path = Path(str(settings.out))
    refuse_others(path, read_lines(path), wanted(settings), fingerprint(settings))


def wanted(settings: Generate) -> list[Line]:
    """Every line that there is to be. UserError where there is no prompt, or the file cannot be read."""
    file = str(settings.file)
    found = read_documents(file, settings.column)
    prompts = list(found) if is_rows(file) else lines(found)
    if not prompts:
        raise UserError(f"{file} holds no prompt")
    return [Line(i, sample, prompt) for i, prompt in enumerate(prompts) for sample in range(settings.samples)]


def lines(texts: Iterable[str]) -> list[str]:
    """A prompt a line, which line feeds end and nothing else; empty ones are none."""
    return [line for text in texts for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def fingerprint(settings: Generate) -> str:
    """Of everything that the answers depend on, but for the prompts."""
    shaping = {k: v for k, v in vars(settings).items() if k not in ("prompt", "file", "out", "column", "rows", "draft")}
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:12]


def refuse_others(path: Path, kept: list[dict[str, Any]], lines: list[Line], mark: str) -> None:
    """UserError unless what is there already is the beginning of what there is to be."""
    same = len(kept) <= len(lines) and all(
        (value.get("prompt"), value.get("sample"), value.get("settings")) == (line.prompt, line.sample, mark)
        for value, line in zip(kept, lines, strict=False)
    )
    if not same or (not kept and path.exists() and beginning(path) not in (b"", BEGINNING)):
        raise UserError(f"{path} holds something else, or answers by other settings: choose another --out")


def beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(BEGINNING))


def answered(model: LanguageModel, lines: list[Line], settings: Generate, bar: Bar) -> Iterator[dict[str, Any]]:
    """The answers in the order of the lines. Twice as many as there are rows are under way: no row stays empty."""
    engine = Engine(model, rows=settings.rows, drafter=drafter(settings.draft, model))
    todo = iter(lines)
    under_way: list[tuple[Line, Answer | UserError]] = []
    while True:
        while len(under_way) < 2 * settings.rows and (line := next(todo, None)) is not None:
            under_way.append((line, begun(engine, line, settings)))
        while under_way and (isinstance(under_way[0][1], UserError) or under_way[0][1].finish):
            yield described(*under_way.pop(0))
        if not under_way:
            return
        engine.step()


def begun(engine: Engine, line: Line, settings: Generate) -> Answer | UserError:
    try:
        return engine.submit(asked(engine.model, line.prompt, settings, line.sample))
    except UserError as error:
        return error


def described(line: Line, answer: Answer | UserError) -> dict[str, Any]:
    """A line of the answers' file."""
    if isinstance(answer, UserError):
        return line._asdict() | {"error": str(answer)}
    if answer.finish == "error":
        return line._asdict() | {"error": STUCK}
    return line._asdict() | {"text": answer.text, "tokens": len(answer.new), "finish": answer.finish}
