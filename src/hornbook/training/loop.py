"""The one loop. What differs between uses (batches, model, what is measured) comes in as arguments."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hornbook.config import Learning
from hornbook.data.loader import Group, Loader
from hornbook.training.engine import Engine, enough_memory
from hornbook.training.guard import PATIENCE, fault, refuse, remember
from hornbook.training.interrupt import Interrupted, deferred_interrupts
from hornbook.training.like import Replay
from hornbook.training.schedules import rate_factor

FIRST_SCALE = 2.0**16
"""What float16 losses are multiplied with at first (Micikevicius et al. 2018, section 3.2)."""
GROWTH = 2000
"""Steps without overflow after which it doubles."""


@dataclass
class State:
    """Where a run stands: what a checkpoint holds beside weights and optimiser."""

    step: int = 0
    tokens: int = 0
    """Read, padding included."""
    targets: int = 0
    """Of steps that were taken."""
    nats: float = 0.0
    """Summed over all those targets, as they were when trained on."""
    seconds: float = 0.0
    best: float = math.inf
    best_loss: float = math.inf
    """What decides between equal ones."""
    worse: int = 0
    """Evaluations since the best one."""
    evaluated: int = 0
    """Step of the last evaluation."""
    recent: list[float] = field(default_factory=list)
    """Losses that a spike is judged by; empty where none is looked for."""
    skipped: int = 0
    """Steps refused, one after the other, up to now."""
    scale: float = FIRST_SCALE
    """Of losses in float16."""
    grown: int = 0
    """Steps since the scale changed."""
    rows: int | None = None
    """Computed at once since memory ran out, if it did."""


@dataclass(frozen=True)
class Taken:
    """One step, taken or left out."""

    step: int
    factor: float
    """On the learning rate."""
    tokens: int
    """Read by the run so far."""
    seconds: float
    progress: float
    batch: int
    """Number of its first batch."""
    fault: str | None
    """Why it was left out."""


@dataclass
class Watch:
    """What the loop calls: after each step, for each evaluation, and to save."""

    step: Callable[[Taken, float, float], None]
    """(step, loss in nats a target, norm of the gradient before it was clipped)."""
    evaluate: Callable[[State], tuple[float, float]]
    """What to keep low, and a loss that decides where that is equal."""
    save: Callable[[State, bool], None]
    """(state, whether this is the best so far)."""


def fit(
    engine: Engine,
    loader: Loader,
    settings: Learning,
    steps: int | None,
    state: State,
    watch: Watch,
    replay: Replay | None = None,
) -> None:
    """Train from wherever `state` stands until `steps` are done or `settings.minutes` are over; at least one step.

    `replay` takes the place of the schedule and of the clock. Raises Interrupted, after saving, when asked to stop, and
    UserError for a loss that is no number.
    """
    course = Course(engine, settings, steps, state, watch, replay)
    engine.objective.train()
    with deferred_interrupts() as course.asked:
        course.clock()
        while state.step == 0 or (course.progress < 1 and not tired(state, settings.patience)):
            before = course.progress
            course.take(loader.get(state.step))
            due = course.evaluation_due(before)
            if due or course.progress >= 1:
                course.evaluate()
            if course.stop and course.progress < 1:
                course.settle()
                if not due:
                    watch.save(state, False)
                raise Interrupted
        if state.evaluated < state.step:  # its time was over before it was carried on
            course.evaluate()
        if course.stop:  # during the last step or its evaluation, which are saved
            raise Interrupted


class Course:
    """The steps of a run, one after the other.

    A GPU computes behind the program's back, and reading a number waits for it. So where nothing depends on them, a
    step's figures are read when the next step's gradients are under way.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Learning,
        steps: int | None,
        state: State,
        watch: Watch,
        replay: Replay | None,
    ) -> None:
        self.engine, self.settings, self.steps, self.state, self.watch = engine, settings, steps, state, watch
        self.replay, self.minutes = replay, None if replay else settings.minutes
        self.evaluations = usual_evaluations(settings.minutes)
        self.half = settings.precision == "float16"
        self.at_once = engine.device.type == "cpu" or self.half or settings.guard == "skip" or settings.spike > 0
        self.pending: tuple[Callable[[], tuple[float, float]], int, Taken] | None = None
        self.asked: Callable[[], bool] = lambda: False
        self.stop = False
        self.began = time.monotonic() - state.seconds
        self.progress = share_done(state, steps, self.minutes)

    def take(self, group: Group) -> None:
        """One step, or its refusal."""
        state = self.state
        self.engine.processes.heart.at_step(state.step + 1)
        scale = state.scale if self.half else 1.0
        loss, norm = self.engine.gradients(group, scale)
        self.settle()  # of the step before, while its weights are there
        factor, first = self.factor(), state.step * self.settings.accumulate
        figures = figures_of(loss, norm)
        reason = self.judge(*figures(), first) if self.at_once else None
        if not group.targets:
            reason = "its rows hold no target"
        if reason is None:
            with self.engine.processes.heart.at("updating weights"), enough_memory("updating weights"):
                self.engine.apply(factor, scale)
        else:
            self.engine.drop()
        state.step += 1
        state.tokens += group.tokens
        self.clock()
        taken = Taken(state.step, factor, state.tokens, state.seconds, self.progress, first, reason)
        self.pending = (figures, group.targets, taken)
        if self.at_once:
            self.settle()

    def evaluate(self) -> None:
        """Measure, and save."""
        state = self.state
        self.settle()
        with self.engine.processes.heart.at("evaluating"), enough_memory("evaluating"):
            found = self.watch.evaluate(state)
        state.evaluated = state.step
        better = found < (state.best, state.best_loss)
        if better:
            state.best, state.best_loss = found
        state.worse = 0 if better else state.worse + 1
        self.clock()
        self.watch.save(state, better)

    def factor(self) -> float:
        """On the learning rate of the step to be taken."""
        if self.replay is not None:
            return self.replay.factors[self.state.step]
        return rate_factor(self.settings.schedule, self.state.step, self.settings.warmup, self.progress)

    def evaluation_due(self, before: float) -> bool:
        """Whether the step just taken, up to which the share `before` was done, calls for an evaluation."""
        if self.replay is not None:
            return self.state.step in self.replay.evaluated
        if self.settings.eval_every:
            return self.state.step % self.settings.eval_every == 0
        return int(self.evaluations * self.progress) > int(self.evaluations * before)

    def judge(self, loss: float, norm: float, first: int) -> str | None:
        """Why a step must be left out, if it must. UserError where the run cannot go on."""
        state = self.state
        if self.half and math.isfinite(loss) and not math.isfinite(norm) and state.scale > 1:
            state.scale, state.grown = state.scale / 2, 0
            return f"float16 overflowed: losses are now multiplied with {state.scale:g}"
        reason = fault(loss, norm, state.recent, self.settings.spike)
        if reason is None:
            state.skipped, state.grown = 0, state.grown + 1
            if self.half and state.grown == GROWTH:
                state.scale, state.grown = 2 * state.scale, 0
            if self.settings.spike:
                state.recent = remember(state.recent, loss)
            return None
        state.skipped += 1
        if self.settings.guard == "stop" or state.skipped > PATIENCE:
            raise refuse(reason, state.step + 1, first, self.settings.guard == "skip")
        return reason

    def settle(self) -> None:
        """Read and tell the figures of a step that have not been read yet."""
        if self.pending is None:
            return
        (figures, targets, taken), self.pending = self.pending, None
        loss, norm = figures()
        if taken.fault is None:
            if reason := fault(loss, norm, [], 0.0):
                raise refuse(reason, taken.step, taken.batch)
            self.state.nats += loss * targets
            self.state.targets += targets
        self.watch.step(taken, loss, norm)

    def clock(self) -> None:
        """Bring up to date what all processes go by: seconds, progress, and whether somebody asked to stop."""
        self.state.seconds, self.stop = self.engine.processes.agree(time.monotonic() - self.began, self.asked())
        self.progress = share_done(self.state, self.steps, self.minutes)


def figures_of(loss: Tensor, norm: Tensor) -> Callable[[], tuple[float, float]]:
    """What gives both as numbers. Of a GPU it waits until they are there, and for nothing that it was sent since."""
    if loss.device.type != "cuda":
        return lambda: (float(loss), float(norm))
    both = torch.stack([loss.detach().double(), norm.detach().double()])
    copy = torch.empty(2, dtype=torch.float64, pin_memory=True).copy_(both, non_blocking=True)
    there = torch.cuda.Event()
    there.record(torch.cuda.current_stream(loss.device))

    def figures() -> tuple[float, float]:
        there.synchronize()
        return float(copy[0]), float(copy[1])

    return figures


def over(state: State, settings: Learning, steps: int | None, replay: Replay | None) -> bool:
    """Whether a run that stands at `state`, just evaluated, has come to its end."""
    minutes = None if replay else settings.minutes
    return share_done(state, steps, minutes) >= 1 or tired(state, settings.patience)


def tired(state: State, patience: int) -> bool:
    """Whether so many evaluations have passed without a better one that the run ends early."""
    return patience > 0 and state.worse >= patience


def usual_evaluations(minutes: float | None) -> int:
    """Ten in a run, but fewer in a run of a minute or two, of which they would take a third."""
    return 10 if minutes is None else max(3, min(10, round(5 * minutes)))


def share_done(state: State, steps: int | None, minutes: float | None) -> float:
    """Between 0 and 1."""
    shares = [state.step / steps] if steps else []
    shares += [state.seconds / (60 * minutes)] if minutes else []
    return max(shares)
