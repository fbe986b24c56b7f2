"""A task as a session's work: by what checkpoints are chosen."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hornbook.config import Finetune
from hornbook.evaluation.judging import put
from hornbook.lessons import Lessons
from hornbook.tasks import Asked, Choice, Dialogue, Preference, Source, Task, open_task
from hornbook.training.task_work import TaskWork
from test_lessons import talker

HELLO: Any = {"role": "user", "content": "Hello"}
CHOICES = [Choice(f"I eat {n}", ("rocks", "bread and butter"), n % 2) for n in range(6)]
PAIRS = [Preference((HELLO,), f"Hi {n}!", "Go away.") for n in range(6)]
TALKS = [Dialogue((HELLO, {"role": "assistant", "content": f"Hi {n}!"})) for n in range(3)]
TEXTS = [Asked({"article": "A long story. It ends."}, f"Short {n}.") for n in range(3)]


def of(name: str, examples: list[Any]) -> Task:
    """The task of that name, with these examples in every split."""
    path = None if name == "cnn-dailymail" else "rows.jsonl"
    return dataclasses.replace(open_task(name, Source(path)), examples=lambda split: iter(examples))


def work_on(task: Task, **changes: Any) -> TaskWork:
    """All examples to learn from and to be held out."""
    known: dict[str, Any] = {"batch": 2, "context": 200, "attention": "fused", "threads": 1, "precision": "float32"}
    settings = Finetune("m", "d", **(known | {"float32_matmul": "highest"} | changes))
    model, examples = talker(context=200), list(task.examples("train"))
    return TaskWork(settings, model, task, 200, examples, Lessons(model, task, 200).pieces(examples))


@pytest.mark.parametrize(("name", "examples"), [("multiple-choice", CHOICES), ("prefer", PAIRS)])
def test_checkpoints_are_chosen_by_the_task_s_first_figure_of_equal_ones_by_the_loss(
    name: str, examples: list[Any]
) -> None:
    task = of(name, examples)
    work = work_on(task)
    looked = work.evaluate(lambda done, total: None)
    judged = put(work.model, task, "validation", examples)
    assert looked.value == -judged.headline
    assert next(iter(looked.figures.items())) == (f"validation_{task.headline}", judged.headline)
    assert looked.loss == looked.figures["validation_loss"] > 0


@pytest.mark.parametrize(("name", "examples"), [("chat", TALKS), ("cnn-dailymail", TEXTS)])
def test_checkpoints_of_what_writes_are_chosen_by_the_loss_on_the_right_answers(name: str, examples: list[Any]) -> None:
    looked = work_on(of(name, examples)).evaluate(lambda done, total: None)
    assert looked.figures == {"validation_loss": looked.value}
    assert looked.value > 0


def test_of_written_answers_with_equal_scores_the_loss_decides() -> None:
    looked = work_on(of("cnn-dailymail", TEXTS), score_generated=True).evaluate(lambda done, total: None)
    assert looked.value == -next(iter(looked.figures.values()))
    assert looked.loss == looked.figures["validation_loss"] > 0
    assert isinstance(looked.sample, str)
