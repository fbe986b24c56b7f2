"""Pairs of answers of which one is better, from a file of the user's: prompt, chosen, rejected.

The prompt is a text, or messages (`messages`, `conversations`), or an instruction with its input. The answers are texts
or messages; or both are whole conversations, and what they have in common at their beginning is the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hornbook.errors import UserError
from hornbook.tasks import Message, Preference, Source, Task, own_file, require
from hornbook.tasks.chat import MESSAGES, messages_of
from hornbook.tasks.instruct import request
from hornbook.text.divided import Divided
from hornbook.text.files import Row, text_cell
from hornbook.text.rows import column_of, columns_of, find_column, read_rows

PROMPT = ("prompt", *MESSAGES, "instruction", "question")


def task(source: Source) -> Task:
    """Preferences of the user's own."""
    require(source, "prefer", ("prompt", "chosen", "rejected"))
    path = own_file(source, "prefer", "rows with the columns prompt (or messages), chosen and rejected")

    def read_one(file: str) -> list[Preference | None]:
        return read(file, source.columns)

    lacking = "a prompt and two different answers"
    return Task(
        "prefer",
        Preference,
        Divided(path, read_one, key, source.seed, lacking=lacking),
        score=marks,
        headline="accuracy",
        baselines={"longer answer": longer},
        chance=0.5,
    )


def marks(example: Preference, output: tuple[float, float]) -> dict[str, float]:
    """accuracy: the chosen answer is the likelier one, and not only as likely; margin: by how many nats."""
    chosen, rejected = output
    return {"accuracy": float(chosen > rejected), "margin": chosen - rejected}


def longer(train: Sequence[Preference], examples: Sequence[Preference]) -> list[tuple[float, float]]:
    """Takes the longer answer, as judges are tempted to; its margin is 1, 0 or -1, for it has no probabilities."""
    lengths = ((len(example.chosen), len(example.rejected)) for example in examples)
    return [(float(chosen > rejected), float(rejected > chosen)) for chosen, rejected in lengths]


def key(example: Preference) -> str:
    return "\n".join(message["content"] for message in example.messages if message["role"] == "user")


def read(path: str, given: Mapping[str, str]) -> list[Preference | None]:
    """The pairs of a file; None for a row whose answers are the same, or that lacks a part."""
    rows = read_rows(path)
    columns = columns_of(rows)
    names = {role: column_of(role, given, (role,), columns, path) for role in ("chosen", "rejected")}
    prompt = find_column("prompt", given, PROMPT, columns)
    if prompt is None and "prompt" in given:
        column_of("prompt", given, PROMPT, columns, path)
    return [preference(row, prompt, names) for row in rows]


def preference(row: Row, prompt: str | None, names: Mapping[str, str]) -> Preference | None:
    """A row's pair."""
    before = said(row, prompt) if prompt else ()
    chosen, rejected = (turns(row.get(column), column, row.where) for column in names.values())
    common = next((n for n, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    if common is None:  # the same, or one goes on where the other ends
        return None
    if chosen[:common]:
        before = chosen[:common]
    for side, column in ((chosen[common:], names["chosen"]), (rejected[common:], names["rejected"])):
        if len(side) != 1 or side[0]["role"] != "assistant":
            raise UserError(f"'{column}' in {row.where} must be one answer of the assistant to what comes before")
    answers = chosen[common]["content"], rejected[common]["content"]
    if not before or not all(answer.strip() for answer in answers):
        return None
    return Preference(tuple(before), *answers)


def said(row: Row, column: str) -> tuple[Message, ...]:
    """What is answered."""
    cell = row.get(column)
    if isinstance(cell, list | dict):
        return messages_of(cell, column, row.where)
    words = request(row, column, "input" if column == "instruction" else None)
    return ({"role": "user", "content": words},) if words else ()


def turns(cell: Any, column: str, where: str) -> tuple[Message, ...]:
    """An answer as messages."""
    if isinstance(cell, list | dict):
        return messages_of(cell, column, where)
    return ({"role": "assistant", "content": text_cell(cell, column, where)},)
