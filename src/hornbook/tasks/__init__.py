"""What models are asked to do, a file a task, found by its name: hellaswag.py is `hellaswag`.

A task's file has `examples(split)`, which yields its examples; `score(example, output)`, which judges a model's output
on one: marks by name, from 0 to 1; and `CHANCE`, the mark of one that guesses. No model is run here.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from hornbook.errors import unknown


@dataclass(frozen=True)
class Choice:
    """A multiple-choice example: which of the endings, each behind a space, continues the prompt?"""

    prompt: str
    endings: tuple[str, ...]
    answer: int
    """The right ending's place."""


def task_names() -> list[str]:
    """The names of all tasks."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def find_task(name: str) -> Any:
    """The module of that task; UserError for a name that is none."""
    if name not in task_names():
        raise unknown("task", name, task_names())
    return import_module(f"{__name__}.{name.replace('-', '_')}")


def score_choice(example: Choice, output: Sequence[tuple[float, int]]) -> dict[str, float]:
    """Marks for choosing the ending of the highest log-probability: its sum, and that sum per character and per token,
    without which longer endings lose.

    `output` has (log-probability in nats, number of tokens) of each ending.
    """
    sums = [nats for nats, _ in output]
    marks = {
        "accuracy": sums,
        "accuracy_per_character": [nats / len(end) for nats, end in zip(sums, example.endings, strict=True)],
        "accuracy_per_token": [nats / max(tokens, 1) for nats, tokens in output],
    }
    return {name: float(values.index(max(values)) == example.answer) for name, values in marks.items()}
