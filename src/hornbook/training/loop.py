"""The one loop. What differs between uses (batches, model, what is measured) comes in as arguments."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from hornbook.config import Train
from hornbook.data.batches import NO_TARGET, Batch
from hornbook.errors import UserError
from hornbook.training.interrupt import Interrupted, deferred_interrupts
from hornbook.training.optimizers import Optimizers
from hornbook.training.schedules import rate_factor


@dataclass
class State:
    """Where a run stands: what a checkpoint holds beside weights and optimiser."""

    step: int = 0
    tokens: int = 0
    """Read, padding included."""
    targets: int = 0
    nats: float = 0.0
    """Summed over all targets of the run, as they were when trained on."""
    seconds: float = 0.0
    best: float = math.inf
    worse: int = 0
    """Evaluations since the best one."""


@dataclass
class Watch:
    """What the loop calls: after each step, for each evaluation (which returns what to keep low), and to save."""

    step: Callable[[State, float, float], None]
    """(state, loss in nats a target, share of the run done)."""
    evaluate: Callable[[State], float]
    save: Callable[[State, bool], None]
    """(state, whether this is the best so far)."""


def fit(
    objective: nn.Module,
    batch: Callable[[int], Batch],
    optimizers: Optimizers,
    settings: Train,
    steps: int | None,
    state: State,
    watch: Watch,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]],
) -> None:
    """Train from wherever `state` stands until `steps` are done or `settings.minutes` are over; at least one step.

    `objective` is on its device and in training mode; `batch(k)` gives batch k. Raises Interrupted, after saving, when
    asked to stop, and UserError for a loss that is no number.
    """
    parameters = list(objective.parameters())
    began = time.monotonic() - state.seconds
    progress = share_done(state, steps, settings.minutes)
    evaluations = usual_evaluations(settings.minutes)
    with deferred_interrupts() as asked:
        while state.step == 0 or (progress < 1 and not tired(state, settings.patience)):
            first = state.step * settings.accumulate
            group = [batch(first + i).to(parameters[0].device) for i in range(settings.accumulate)]
            targets = sum(int((b.targets != NO_TARGET).sum()) for b in group)
            loss = backward(objective, group, targets, autocast)
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss became {loss} at step {state.step + 1} (batch {first}); the last checkpoint is whole. "
                    "Try a lower --lr or more --warmup"
                )
            if settings.clip:
                nn.utils.clip_grad_norm_(parameters, settings.clip)
            optimizers.step(rate_factor(settings.schedule, state.step, settings.warmup, progress))
            state.step += 1
            state.tokens += sum(b.tokens.numel() for b in group)
            state.targets += targets
            state.nats += loss * targets
            state.seconds = time.monotonic() - began
            before, progress = progress, share_done(state, steps, settings.minutes)
            watch.step(state, loss, progress)
            if settings.eval_every:
                due = state.step % settings.eval_every == 0
            else:
                due = int(evaluations * progress) > int(evaluations * before)
            if due or progress >= 1:
                value = watch.evaluate(state)
                better = value < state.best
                state.best, state.worse = (value, 0) if better else (state.best, state.worse + 1)
                state.seconds = time.monotonic() - began
                watch.save(state, better)
            if asked() and progress < 1:
                if not due:
                    watch.save(state, False)
                raise Interrupted


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


def backward(
    objective: nn.Module,
    group: list[Batch],
    targets: int,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]],
) -> float:
    """Gradients of the mean loss over all `targets` of the group, however they are cut into batches; that loss."""
    loss = 0.0
    for b in group:
        with autocast():
            nats, _ = objective(b.tokens, b.targets, b.segments)
        (nats / max(targets, 1)).backward()
        loss += float(nats.detach()) / max(targets, 1)
    return loss
