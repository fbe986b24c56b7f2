"""The loop around the steps: refusals, float16's scale, figures read late, callbacks."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import tiny_model
from hornbook.config import Evaluate, Inspect, Ladder, Plan, Train
from hornbook.errors import UserError
from hornbook.layers.model import LanguageModel
from hornbook.run import read_log
from hornbook.training import work
from hornbook.training.callbacks import Moment
from hornbook.training.engine import Engine
from hornbook.training.guard import MEMORY, PATIENCE, fault, remember
from hornbook.training.interrupt import Interrupted
from hornbook.training.like import Replay
from hornbook.training.loop import FIRST_SCALE, GROWTH, Course, State, Taken, Watch, fit
from hornbook.training.pretrain import train
from test_engine import SETTINGS, Group, group
from test_examples import few_tasks
from test_training import settings


class Steps:
    """A loader of batches that are all alike, and the steps that the loop tells of."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.told: list[tuple[int, float, float, str | None]] = []
        self.saved: list[int] = []
        self.engine, self.weights = engine, []
        """The first matrix as it was when each step was told of."""

    def get(self, step: int) -> Group:
        return group(seed=step)

    @property
    def watch(self) -> Watch:
        return Watch(self.step, lambda state: (1.0, 0.0), lambda state, best: self.saved.append(state.step))

    def step(self, taken: Taken, loss: float, norm: float) -> None:
        self.told.append((taken.step, loss, norm, taken.fault))
        if self.engine is not None:
            self.weights.append(self.engine.parameters[0].detach().clone())


def run(
    engine: Engine, steps: int, late: bool = False, told: Steps | None = None, **changes: object
) -> tuple[Steps, State]:
    wanted, told, state = dataclasses.replace(SETTINGS, **changes), told or Steps(engine), State()
    if late:
        before = Course.__init__

        def late_one(self: Course, *args: object) -> None:
            before(self, *args)  # type: ignore[arg-type]
            self.at_once = False

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Course, "__init__", late_one)
            fit(engine, told, wanted, steps, state, told.watch)  # type: ignore[arg-type]
    else:
        fit(engine, told, wanted, steps, state, told.watch)  # type: ignore[arg-type]
    return told, state


def engine(**changes: object) -> Engine:
    return Engine(tiny_model("llama"), dataclasses.replace(SETTINGS, **changes))


def poison(one: Engine, steps: set[int]) -> None:
    """Make the loss of some steps no number."""
    counted, whole = iter(range(10**9)), one.backward

    def backward(group: Group, scale: float = 1.0) -> torch.Tensor:
        loss = whole(group, scale)
        if next(counted) in steps:
            one.parameters[0].grad.fill_(math.nan)  # type: ignore[union-attr]
            return loss * math.nan
        return loss

    one.backward = backward  # type: ignore[method-assign]


def test_figures_read_late_are_the_same_figures() -> None:
    (at_once, first), (late, second) = run(engine(), 7), run(engine(), 7, late=True)
    assert at_once.told == late.told
    assert [step for step, *_ in late.told] == list(range(1, 8))
    assert (first.nats, first.targets) == (second.nats, second.targets)
    assert all(torch.equal(a, b) for a, b in zip(at_once.weights, late.weights, strict=True)), "those of its own step"


@pytest.mark.parametrize("place", ["evaluating", "updating weights"])
def test_memory_that_runs_out_beside_the_gradients_ends_the_run_in_a_line(place: str) -> None:
    def full(*_: object) -> tuple[float, float]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    one, told = engine(), Steps()
    watch = dataclasses.replace(told.watch, evaluate=full) if place == "evaluating" else told.watch
    if place != "evaluating":
        one.apply = full  # type: ignore[method-assign, assignment]
    with pytest.raises(UserError, match=f"memory ran out while {place}: take a smaller model"):
        fit(one, told, SETTINGS, 1, State(), watch)  # type: ignore[arg-type]
    assert told.saved == []


def test_of_equal_figures_the_lower_loss_makes_the_best() -> None:
    found, state = iter([(-0.5, 0.9), (-0.5, 0.4), (-0.5, 0.4), (-0.4, 0.1), (-0.6, 2.0)]), State()
    best: list[bool] = []
    watch = Watch(lambda *_: None, lambda _: next(found), lambda _, better: best.append(better))
    fit(engine(), Steps(), dataclasses.replace(SETTINGS, eval_every=1), 5, state, watch)  # type: ignore[arg-type]
    assert best == [True, True, False, False, True]
    assert (state.best, state.best_loss, state.worse) == (-0.6, 2.0, 0)


def test_a_loss_that_is_no_number_read_late_still_ends_the_run_before_it_is_saved() -> None:
    one = engine()
    poison(one, {4})
    told = Steps(one)
    with pytest.raises(UserError, match=r"the loss became nan at step 5 \(batch 4\); checkpoints, if .* are whole"):
        run(one, 9, late=True, told=told, eval_every=5)
    assert told.saved == []
    assert [step for step, *_ in told.told] == [1, 2, 3, 4]


def test_a_refused_step_is_left_out_and_told_with_its_batch() -> None:
    one, plain = engine(guard="skip"), engine()
    poison(one, {2})
    told, state = run(one, 5, guard="skip")
    faults = {step: reason for step, _, _, reason in told.told}
    assert faults == {1: None, 2: None, 3: "the loss became nan", 4: None, 5: None}
    assert math.isfinite(state.nats)
    assert all(bool(p.isfinite().all()) for p in one.parameters)
    for step in range(5):  # the same steps without the third
        plain.gradients(group(seed=step))
        if step != 2:
            plain.apply(min(1.0, (step + 1) / SETTINGS.warmup))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters, plain.parameters, strict=True))


def test_refusing_ends_when_nothing_else_happens() -> None:
    one = engine(guard="skip")
    poison(one, set(range(100)))
    with pytest.raises(UserError, match=f"the loss became nan at step {PATIENCE + 1} .*the 21th in a row") as error:
        run(one, 90, guard="skip")
    assert "--guard" not in str(error.value), "which it has"


def test_rows_without_any_target_move_no_weight() -> None:
    one, told = engine(), Steps()
    full = told.get

    def get(step: int) -> Group:
        found = full(step)
        if step != 1:
            return found
        empty = [dataclasses.replace(batch, targets=torch.full_like(batch.targets, -100)) for batch in found.batches]
        return Group(empty, 0, found.tokens)

    told.get = get  # type: ignore[method-assign]
    weights: list[torch.Tensor] = []

    def step(taken: Taken, loss: float, norm: float) -> None:
        told.step(taken, loss, norm)
        weights.append(one.parameters[0].detach().clone())

    fit(one, told, SETTINGS, 3, State(), dataclasses.replace(told.watch, step=step))  # type: ignore[arg-type]
    assert [fault for *_, fault in told.told] == [None, "its rows hold no target", None]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


@pytest.mark.parametrize(("evaluated", "wanted"), [(2, [3]), (3, [])])
def test_a_run_whose_time_was_over_before_it_was_carried_on_is_measured(evaluated: int, wanted: list[int]) -> None:
    told, state = Steps(), State(step=3, seconds=61.0, evaluated=evaluated)
    fit(engine(), told, dataclasses.replace(SETTINGS, minutes=1.0), None, state, told.watch)  # type: ignore[arg-type]
    assert told.saved == wanted
    assert told.told == []


def test_a_leap_of_the_loss_is_a_spike_and_a_slow_rise_is_none() -> None:
    recent: list[float] = []
    for i in range(3 * MEMORY):
        recent = remember(recent, 5 + 0.1 * math.sin(i))
    assert len(recent) == MEMORY
    assert fault(5.15, 1.0, recent, 6) is None
    assert "the loss leapt to 6.000 (before: 5.0" in str(fault(6.0, 1.0, recent, 6))
    assert fault(6.0, 1.0, recent, 0) is None
    assert fault(6.0, 1.0, recent[:5], 6) is None
    assert fault(5.0, math.inf, recent, 6) == "the gradient's norm became inf"


def test_float16_overflow_halves_the_scale_and_leaves_out_the_step() -> None:
    one = engine(precision="float16")
    assert one.dtype == torch.float16
    whole, scales = one.backward, []

    def backward(group: Group, scale: float = 1.0) -> torch.Tensor:
        scales.append(scale)
        loss = whole(group, scale)
        if scale > FIRST_SCALE / 4:
            one.parameters[0].grad.fill_(math.inf)  # type: ignore[union-attr]
        return loss

    one.backward = backward  # type: ignore[method-assign]
    told, state = run(one, 6, precision="float16")
    assert scales == [FIRST_SCALE, FIRST_SCALE / 2, *4 * [FIRST_SCALE / 4]]
    assert [reason is None for *_, reason in told.told] == [False, False, True, True, True, True]
    assert state.scale == FIRST_SCALE / 4
    assert state.grown == 4


def test_float16_s_scale_grows_again_after_quiet_steps() -> None:
    course = Course(engine(), dataclasses.replace(SETTINGS, precision="float16"), 10, State(), Steps().watch, None)
    for _ in range(GROWTH):
        assert course.judge(1.0, 1.0, 0) is None
    assert (course.state.scale, course.state.grown) == (2 * FIRST_SCALE, 0)


def test_float16_learns_what_float32_learns() -> None:
    losses = [run(engine(precision=p), 20, precision=p)[0].told for p in ("float32", "float16")]
    assert losses[1][-1][1] < losses[1][0][1]
    # 20 steps of Adam on numbers with 11 bits instead of 24
    assert losses[1][-1][1] == pytest.approx(losses[0][-1][1], rel=0.02)


def test_given_rates_take_the_schedule_s_place() -> None:
    one = engine()
    factors: list[float] = []
    apply = one.apply
    one.apply = lambda factor, scale=1.0: (factors.append(factor), apply(factor, scale))  # type: ignore[method-assign]
    told = Steps()
    fit(one, told, SETTINGS, 3, State(), told.watch, Replay([0.5, 0.25, 1.0], frozenset({2})))  # type: ignore[arg-type]
    assert factors == [0.5, 0.25, 1.0]
    assert told.saved == [2, 3]


def test_the_rows_that_memory_had_room_for_are_part_of_where_a_run_stands(text_folder: Path, tmp_path: Path) -> None:
    """In parts of other sizes sums are rounded otherwise: a run that carries on must not begin with whole batches."""
    begun, seen = settings(text_folder, tmp_path / "run", steps=6, eval_every=2), []
    before = Engine.backward

    def backward(self: Engine, group: Group, scale: float = 1.0) -> torch.Tensor:
        seen.append(self.rows)
        if len(seen) == 2 and self.rows > 2:
            raise torch.OutOfMemoryError("out of memory")
        return before(self, group, scale)

    def stop(moment: Moment) -> None:
        if moment.event == "save" and moment.step == 4:
            raise KeyError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "backward", backward)
        with pytest.raises(KeyError):
            train(begun, [stop])
        fewer = seen[-1]
        assert fewer < seen[0]
        train(begun)
    assert seen[-2:] == [fewer, fewer]


def test_a_run_that_is_asked_to_stop_in_its_last_step_stops(text_folder: Path, tmp_path: Path) -> None:
    wanted = settings(text_folder, tmp_path / "run", steps=3)

    def stop(moment: Moment) -> None:
        if moment.event == "step" and moment.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(wanted, [stop])
    assert not (tmp_path / "run" / "summary.json").exists()
    assert train(wanted)["steps"] == 3


def test_callbacks_hear_of_steps_evaluations_saves_and_the_end(text_folder: Path, tmp_path: Path) -> None:
    heard: list[Moment] = []
    train(settings(text_folder, tmp_path / "run", steps=4, eval_every=2), [heard.append])
    assert [m.event for m in heard] == ["step", "step", "evaluation", "save"] * 2 + ["end"]
    assert [m.values for m in heard if m.event in ("step", "evaluation")] == read_log(tmp_path / "run")
    assert {"loss", "lr", "gradient_norm", "seconds", "tokens"} < heard[0].values.keys()
    assert heard[-1].values["validation"]["bits_per_byte"] > 0
    assert Path(heard[3].values["folder"]).name == "000002"


def test_a_callback_that_fails_ends_the_run_and_the_run_carries_on_without_it(
    text_folder: Path, tmp_path: Path
) -> None:
    def fail(moment: Moment) -> None:
        if moment.step == 3:
            raise ZeroDivisionError

    wanted = settings(text_folder, tmp_path / "run", steps=4, eval_every=2)
    with pytest.raises(ZeroDivisionError):
        train(wanted, [fail])
    assert train(wanted)["steps"] == 4
    assert [line["step"] for line in read_log(tmp_path / "run") if "loss" in line] == [1, 2, 3, 4]


def test_a_skipped_step_is_in_the_log(text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Engine.gradients
    calls = iter(range(100))

    def gradients(self: Engine, *args: object) -> tuple[torch.Tensor, torch.Tensor]:
        loss, norm = whole(self, *args)  # type: ignore[arg-type]
        return (loss * math.nan, norm) if next(calls) == 1 else (loss, norm)

    monkeypatch.setattr(Engine, "gradients", gradients)
    train(settings(text_folder, tmp_path / "run", steps=3, guard="skip", accumulate=2))
    line = next(line for line in read_log(tmp_path / "run") if "skipped" in line)
    assert (line["step"], line["skipped"], line["batch"]) == (2, "the loss became nan", 2)


def test_tasks_are_scored_at_every_evaluation_without_dropout(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[bool] = []

    def figures(model: LanguageModel, names: Iterable[str]) -> dict[str, float]:
        modes.append(model.training)
        return dict.fromkeys(names, 0.25)

    monkeypatch.setattr(work, "task_figures", figures)
    monkeypatch.setenv("HORNBOOK_DATA", str(few_tasks(tmp_path / "data")))
    wanted = settings(text_folder, tmp_path / "run", steps=4, eval_every=2, tasks=("hellaswag",), dropout=0.1)
    train(wanted)
    lines = [line for line in read_log(tmp_path / "run") if "validation_loss" in line]
    assert [line["hellaswag"] for line in lines] == [0.25, 0.25]
    assert modes == [False, False]
    with pytest.raises(UserError, match="hellaswga"):
        train(dataclasses.replace(wanted, out=str(tmp_path / "other"), tasks=("hellaswga",)))


def test_parts_that_do_not_divide_the_batch_are_refused(text_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--batch 4 cannot be divided into parts of --rows 3: 1, 2, 4 can"):
        train(settings(text_folder, tmp_path / "run", steps=1, rows=3))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"optimizer": "adamm"}, "unknown --optimizer 'adamm'. Did you mean 'adamw'"),
        ({"schedule": "cosin"}, "unknown --schedule 'cosin'. Did you mean 'cosine'"),
        ({"precision": "bf16"}, "unknown --precision 'bf16'"),
        ({"guard": "skp"}, "Did you mean 'skip'"),
        ({"batch": "max"}, "unknown --batch 'max'. Possible: auto"),
        ({"track": ("wandbb",)}, "unknown --track 'wandbb'. Did you mean 'wandb'"),
        ({"float32_matmul": "hi"}, "unknown --float32-matmul 'hi'"),
    ],
)
def test_a_word_that_a_setting_does_not_know_is_answered_with_the_nearest(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        Train("rnn", **given)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: Inspect("x", "The fox", pictures="out", picture=("lenz",)), "unknown --picture 'lenz'"),
        (lambda: Inspect("x", "The fox", pictures="out", picture="lens"), "picture=('lens',)"),
        (lambda: Evaluate("x", text="The fox"), "text takes several values: write text=('The fox',)"),
        (lambda: Evaluate("x", split="dev"), "unknown --split 'dev'"),
        (lambda: Plan("x", "1B", parallel="shrad"), "unknown --parallel 'shrad'. Did you mean 'shard'"),
        (lambda: Ladder(rungs="bigram"), "rungs takes several values: write rungs=('bigram',)"),
        (lambda: Train("rnn", timeout=math.inf), "--timeout is inf: it must be at most 1e9 seconds"),
    ],
)
def test_what_python_gives_is_checked_as_what_is_typed(made: Callable[[], Any], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        made()


def test_settings_know_what_they_cannot_be() -> None:
    with pytest.raises(UserError, match="--batch is 0: it must be above 0, or auto"):
        Train("llama-tiny", batch=0)
    assert Train("llama-tiny", batch="auto").batch == "auto"
