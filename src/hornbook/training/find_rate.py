"""Which learning rate? One step at each of a hundred rising rates, and the loss over them.

The range test of Smith 2017 ("Cyclical learning rates for training neural networks", section 3.3), with rates that rise
by a factor instead of a difference, and a smoothed loss. What the model learns by it is thrown away.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hornbook.atomic import write_json
from hornbook.config import Learning
from hornbook.data.loader import Group, Loader
from hornbook.errors import UserError
from hornbook.layers.model import LanguageModel
from hornbook.progress import Bar, say
from hornbook.run import FOUND_RATES, Run
from hornbook.training.choices import describe
from hornbook.training.engine import Engine
from hornbook.training.loop import FIRST_SCALE
from hornbook.training.work import Work

LOWEST, HIGHEST, STEPS = 1e-7, 1.0, 100
MEMORY = 0.9
"""Of the smoothed loss: an exponential mean, corrected for its beginning (as Adam's; Kingma and Ba 2015, section 3)."""
SETTLED = 20
"""First steps, whose rates change nothing to speak of: they show how far losses stray by themselves."""
SIGNIFICANT = 3.0
"""A smoothed loss has fallen if it has by so many of its standard deviations."""
LEAST = 0.005
"""Of what it began with: a smaller fall is none."""
BEGUN = 0.1
"""The share of its fall after which a loss is judged by its slope: what came before may be chance."""
REACH = 5
"""Steps before and after one over which a slope is taken."""


@dataclass(frozen=True)
class Found:
    """What the rates did. Losses in nats a target."""

    rates: list[float]
    losses: list[float]
    """Of the batch after each step."""
    smoothed: list[float]
    ended: str
    """Why there are no more of them."""
    suggestion: float | None
    """The rate at which the smoothed loss falls fastest, to two figures; None where it does not fall."""
    lowest: float | None
    """The rate at which it is lowest, and begins to rise."""
    careful: float | None
    """A tenth of that, to two figures."""


def find_rate(settings: Learning, model: LanguageModel, work: Work, run: Run, about: dict[str, Any]) -> dict[str, Any]:
    """Try the rates, and write what came of it into the run's folder as find-lr.json; returns that. `settings` leave
    nothing open; `model` is no good afterwards. UserError where `run` could not be begun in its folder."""
    if run.folder.is_file() or run.foreign():
        raise UserError(f"{run.folder} exists and is not a run: choose another --out")
    say(f"engine: {describe(settings)}")
    with Bar("learning rates") as bar:
        found = judge_rates(*try_rates(settings, model, work, bar))
    told = {name: getattr(settings, name) for name in ("optimizer", "batch", "accumulate", "seed")}
    summary = about | told | dataclasses.asdict(found)
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / FOUND_RATES[0], summary)
    return summary


def try_rates(settings: Learning, model: LanguageModel, work: Work, bar: Bar) -> tuple[list[float], list[float], str]:
    """(rates, the loss after a step at each, why they end). The same for the same seed."""
    torch.manual_seed(settings.seed)
    engine = Engine(model, dataclasses.replace(settings, lr=1.0), work.objective)
    engine.objective.train()
    loader = Loader(work.batch, settings.accumulate, engine.device, foresight=getattr(work, "foresight", None))
    step = Step(engine, FIRST_SCALE if settings.precision == "float16" else 1.0)
    tried: list[float] = []
    losses: list[float] = []
    try:
        start, norm = step.look(loader.get(0))
        if not (math.isfinite(start) and math.isfinite(norm)):
            raise UserError(f"the loss is {start} and its gradient's norm {norm} before any step: no rate mends that")
        for k, rate in enumerate(np.geomspace(LOWEST, HIGHEST, STEPS).tolist()):
            step.take(rate)
            loss, norm = step.look(loader.get(k + 1))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                return tried, losses, f"at {rate:.1e} the loss became {loss:.3g}, the gradient's norm {norm:.3g}"
            tried, losses = [*tried, rate], [*losses, loss]
            bar.show(k + 1, STEPS, f"rate {rate:.1e}  loss {loss:.3f}")
            if diverged(smooth(losses), start):
                return tried, losses, f"at {rate:.1e} the loss was well above its lowest"
        return tried, losses, "all rates were tried"
    finally:
        loader.close()


class Step:
    """Gradients, then a step at any rate; losses in float16 are multiplied with what does not overflow."""

    def __init__(self, engine: Engine, scale: float) -> None:
        """`engine` has a rate of 1."""
        self.engine, self.scale = engine, scale

    def look(self, group: Group) -> tuple[float, float]:
        """The loss of the group in nats a target, and the norm of its gradient."""
        loss, norm = self.measured(group)
        while self.scale > 1 and math.isfinite(loss) and not math.isfinite(norm):
            self.scale /= 2
            loss, norm = self.measured(group)
        return loss, norm

    def measured(self, group: Group) -> tuple[float, float]:
        found: tuple[Tensor, Tensor] = self.engine.gradients(group, self.scale)
        return float(found[0]), float(found[1])

    def take(self, rate: float) -> None:
        self.engine.apply(rate, self.scale)


def diverged(smoothed: list[float], start: float) -> bool:
    """Whether the loss is above its lowest by half of what it began with, or by a tenth of a nat if that is more."""
    return len(smoothed) > SETTLED and smoothed[-1] > min(smoothed) + max(start / 2, 0.1)


def smooth(losses: list[float]) -> list[float]:
    """The exponential mean of what came up to each."""
    mean, found = 0.0, []
    for k, loss in enumerate(losses, 1):
        mean = MEMORY * mean + (1 - MEMORY) * loss
        found.append(mean / (1 - MEMORY**k))
    return found


def judge_rates(rates: list[float], losses: list[float], ended: str) -> Found:
    """The rates to choose from: none where the loss falls by no more than it strays."""
    smoothed = smooth(losses)
    if len(smoothed) <= SETTLED:
        return Found(rates, losses, smoothed, ended, None, None, None)
    before = losses[:SETTLED]
    stray = statistics.stdev(before) * math.sqrt((1 - MEMORY) / (1 + MEMORY))
    place = min(range(SETTLED, len(smoothed)), key=smoothed.__getitem__)
    level = statistics.fmean(before)
    if level - smoothed[place] <= max(SIGNIFICANT * stray, LEAST * level):
        return Found(rates, losses, smoothed, ended, None, None, None)
    begun = level - BEGUN * (level - smoothed[place])
    start = max((i for i in range(place) if smoothed[i] >= begun), default=0)
    lowest, steepest = rates[place], rates[steepest_place(rates, smoothed, start, place)]
    return Found(rates, losses, smoothed, ended, rounded(steepest), lowest, rounded(lowest / 10))


def rounded(rate: float) -> float:
    return float(f"{rate:.1e}")


def steepest_place(rates: list[float], smoothed: list[float], start: int, end: int) -> int:
    """Where, from `start` to `end`, a line through the losses around falls fastest over the logarithm of the rate."""
    logs = np.log10(rates)

    def slope(i: int) -> float:
        near = slice(max(0, i - REACH), i + REACH + 1)
        return float(np.polyfit(logs[near], smoothed[near], 1)[0])

    return min(range(start, end + 1), key=slope)


def advice(found: dict[str, Any]) -> str:
    """The suggestion in a sentence."""
    if found["suggestion"] is None:
        return (
            "no rate made the loss fall by more than it strays from batch to batch: there is nothing to suggest; "
            "a larger --batch or --accumulate strays less"
        )
    return (
        f"try --lr {found['suggestion']:g}, at which the loss falls fastest; or, with care, {found['careful']:g}, a "
        f"tenth of where it begins to rise ({found['lowest']:.2g})"
    )
