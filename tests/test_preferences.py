"""Preferences: the loss begins at ln 2 whatever the precision, and what is measured is called what it is."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from hornbook.config import Finetune
from hornbook.data.batches import Batch
from hornbook.data.packing import stacked
from hornbook.evaluation.judging import put
from hornbook.layers.model import LanguageModel
from hornbook.lessons import Lessons
from hornbook.tasks import Preference, Source, open_task
from hornbook.training.objective import PreferenceObjective
from hornbook.training.task_work import TaskWork, rewards, with_reference
from test_lessons import talker

PAIRS = [
    Preference(({"role": "user", "content": f"Say {word}."},), f"Gladly: {word}!", f"No, not {word[:2]}.")
    for word in ("house", "tree", "garden", "a long word", "rain")
]


def loud(family: str = "llama") -> LanguageModel:
    """Tiny, with logits large enough for their rounding to be felt."""
    torch.manual_seed(0)
    model = talker(family)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.ndim > 1 else 1)
    return model


def work_on(model: LanguageModel, **changes: Any) -> TaskWork:
    """All pairs to learn from and to be held out."""
    task = dataclasses.replace(open_task("prefer", Source("pairs.jsonl")), examples=lambda split: iter(PAIRS))
    known: dict[str, Any] = {"batch": 2, "context": 200, "attention": "fused", "threads": 1, "compile": "no"}
    settings = Finetune("m", "d", **(known | {"precision": "float32", "float32_matmul": "highest"} | changes))
    return TaskWork(settings, model, task, 200, PAIRS, Lessons(model, task, 200).pieces(PAIRS))


@torch.no_grad()
def margins(work: TaskWork, batch: Batch) -> torch.Tensor:
    """As a training step has them."""
    assert isinstance(work.objective, PreferenceObjective)
    with work.autocast():
        return work.objective.margins(*batch.arguments)


@pytest.mark.parametrize("attention", ["fused", "written-out"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_first_loss_is_ln_2_in_the_precision_of_the_training(precision: str, attention: str) -> None:
    """Rows of other widths may round a logit the other way: one rounding of the largest is allowed to a margin, by
    which the loss moves by half of beta as much."""
    model = loud()
    work = work_on(model, precision=precision, attention=attention, batch=3)
    model.train()
    batch = work.batch(0)
    with torch.no_grad(), work.autocast():
        step = {"float32": 2.0**-23, "bfloat16": 2.0**-8}[precision]
        rounding = float(model(batch.tokens).abs().max()) * step
        nats, pairs = work.objective(*batch.arguments)
    assert float(margins(work, batch).abs().max()) <= rounding
    assert float(nats) / int(pairs) == pytest.approx(math.log(2), abs=0.1 / 2 * rounding + 2**-22)
    exact = with_reference(model, work.packed.pieces)  # in float32, as it must not be for bfloat16
    wrong = margins(work, stacked([[piece] for piece in exact], 160))
    assert (float(wrong.abs().max()) > 3 * rounding) == (precision == "bfloat16")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_that_has_not_moved_has_no_rewards_and_is_half_right(precision: str) -> None:
    work = work_on(loud(), precision=precision)
    with work.autocast():
        figures = work.evaluate(lambda done, total: None).figures
    summary = work.summary(lambda done, total: None)  # which is made outside of any autocast
    for told in (figures, summary):
        assert told["validation_reward_accuracy"] == 0.5
        assert told["validation_reward_margin"] == 0.0
        assert told["validation_loss"] == pytest.approx(math.log(2), abs=1e-9)


def test_rewards_are_gains_on_the_reference_and_accuracy_asks_which_answer_is_the_likelier() -> None:
    """A model that was moved against the better answers still finds some of them likelier, and the other way round."""
    model = loud()
    work = work_on(model, beta=0.3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    found = work.evaluate(lambda done, total: None).figures
    now, begun = (np.array(put(m, work.task, "validation", PAIRS).outputs) for m in (model, loud()))
    gains = (now - begun) @ [1, -1]
    assert found["validation_accuracy"] == np.mean(now @ [1, -1] > 0)
    assert found["validation_margin"] == pytest.approx(np.mean(now @ [1, -1]), abs=1e-3)
    assert found["validation_reward_accuracy"] == np.mean(gains > 0) != found["validation_accuracy"]
    assert found["validation_reward_margin"] == pytest.approx(0.3 * np.mean(gains), abs=1e-3)
    summary = work.summary(lambda done, total: None)
    assert summary["scores"]["figures"]["accuracy"]["value"] == found["validation_accuracy"]
    assert summary["validation_reward_accuracy"] == found["validation_reward_accuracy"]


def test_what_is_measured_of_preferences_knows_no_dropout() -> None:
    model = loud()
    for module in model.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.5 if isinstance(module.dropout, float) else torch.nn.Dropout(0.5)
    work = work_on(model)
    model.train()
    figures = [work.summary(lambda done, total: None), work.evaluate(lambda done, total: None).figures]
    assert [one["validation_reward_margin"] for one in figures] == [0.0, 0.0]
    assert model.training


def test_equal_rewards_count_as_half_right() -> None:
    begun = np.array([[-3.0, -2.0], [-5.0, -1.0], [-4.0, -4.0]])
    moved = begun + np.array([[2.0, 1.0], [1.0, 1.0], [0.0, 3.0]])
    found = rewards(moved, begun, beta=0.5)
    assert found["validation_reward_accuracy"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["validation_reward_margin"] == pytest.approx(0.5 * (1 + 0 - 3) / 3)
    expected = -np.log(1 / (1 + np.exp(-0.5 * np.array([1.0, 0.0, -3.0])))).mean()
    assert found["validation_loss"] == pytest.approx(expected)


def test_batches_with_other_numbers_of_targets_need_no_other_code() -> None:
    """A compiled objective that made code for each batch took longer than a plain one, and said so in many lines."""
    work = work_on(loud(), batch=1)
    backend = CompileCounter()
    compiled = torch.compile(work.objective, backend=backend, dynamic=False)
    batches = [stacked([[piece]], 160) for piece in work.packed.pieces]
    assert len({int((batch.targets >= 0).sum()) for batch in batches}) > 2
    torch.compiler.reset()
    with torch.no_grad():
        compiled(*batches[0].arguments)
        made = backend.frame_count
        found = [float(compiled(*batch.arguments)[0]) for batch in batches]
        plain = [float(work.objective(*batch.arguments)[0]) for batch in batches]
    assert backend.frame_count == made >= 1
    assert found == pytest.approx(plain, abs=1e-6)
