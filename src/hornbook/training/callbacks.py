"""Callbacks: plain functions that a run calls at every step, evaluation and save, and at its end.

    def note(moment):
        if moment.event == "evaluation":
            print(moment.step, moment.values)

    hornbook.train("llama-tiny", steps=100, callbacks=[note])

docs/training.md writes some of use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hornbook.layers.model import LanguageModel
from hornbook.progress import duration

Event = Literal["step", "evaluation", "save", "end"]


@dataclass(frozen=True)
class Moment:
    """What a callback is told."""

    event: Event
    step: int
    """Optimiser steps done."""
    values: dict[str, Any]
    """What metrics.jsonl says of the moment: loss, lr, ...; the folder of a save; the summary at the end."""
    model: LanguageModel
    folder: Path
    """The run's."""


Callback = Callable[[Moment], None]


def tell(callbacks: Iterable[Callback], moment: Moment) -> None:
    """Call each in turn. What one raises ends the run: a checkpoint is as whole as before."""
    for callback in callbacks:
        callback(moment)


def table(write: Callable[[str], None] = print) -> Callback:
    """A callback that writes one row of a table at each evaluation, the headings before the first: for a notebook."""
    loss, headed = float("nan"), False

    def follow(moment: Moment) -> None:
        nonlocal loss, headed
        values = moment.values
        if moment.event == "step":
            loss = values.get("loss", loss)
        if moment.event != "evaluation":
            return
        if not headed:
            write(f"{'step':>7} {'time':>11} {'loss':>7} {'validation':>10} {'bits a byte':>11}  sample")
            headed = True
        bits = values.get("validation_bits_per_byte")
        held_out = values.get("validation_loss", values.get("validation_masked_loss"))
        write(
            f"{moment.step:>7} {duration(values.get('seconds', float('nan'))):>11} {loss:>7.3f} "
            f"{cell(held_out):>10} {cell(bits):>11}  {(values.get('sample') or '')[:50]!r}"
        )

    return follow


def cell(value: float | None) -> str:
    """Three decimals; a dash for what was not measured."""
    return "-" if value is None else f"{value:.3f}"
