"""What fits: the sharding and the rows at once of a plan for GPUs, and what to change where nothing does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from hornbook import models
from hornbook.config import ModelConfig, Plan, TransformerConfig
from hornbook.errors import UserError
from hornbook.inspection.grid import sized
from hornbook.planning.devices import NODE, USABLE, Gpu
from hornbook.planning.layout import Layout
from hornbook.planning.memory import Case, largest_batch, memory

STEP = 2**19
"""Tokens of a step at least, as in GPT-3's smallest models (Brown et al. 2020, table 2.1); more where every group of
devices needs a row."""
LARGEST = 65536
"""GPUs above which no plan is looked for."""


def recipe(settings: Plan, config: ModelConfig) -> str:
    """The optimiser: the family's own, as `hornbook train` takes it."""
    return settings.optimizer or getattr(models.family(config.family), "RECIPE", {}).get("optimizer", "adamw")


def arranged(settings: Plan, config: ModelConfig, gpu: Gpu, devices: int) -> tuple[Case, int, int]:
    """The first sharding that is possible, its rows at once, and how many such batches a step takes."""
    precision = "bfloat16" if settings.precision == "auto" else settings.precision
    context = settings.context or config.context
    kernel = "fused" if settings.attention == "auto" else settings.attention
    optimizer = recipe(settings, config)
    wished = settings.parallel in ("shard", "hybrid") or settings.tensor > 1
    if wished and (why := fault(config, optimizer)):
        raise UserError(why)
    plain = Case(config, Layout(), context, precision, optimizer, settings.recompute, attention=kernel)
    for layout in layouts(settings, devices, fault(config, optimizer) is None):
        case = dataclasses.replace(plain, layout=layout)
        if rows := rows_at_once(case, settings, USABLE * gpu.memory):
            batches = math.ceil(rows_of_step(case, settings) / rows)
            return dataclasses.replace(case, accumulating=batches > 1), rows, batches
    raise too_large(settings, case, gpu)


def fault(config: ModelConfig, optimizer: str) -> str | None:
    """Why `hornbook train` would not divide a model; None where it would."""
    if not isinstance(config, TransformerConfig):
        return f"sharding is for Transformers, and {config.family} is none: --parallel data works"
    if optimizer == "adafactor":
        return "--optimizer adafactor needs whole matrices: take adamw or muon, or --parallel data"
    return None


def layouts(settings: Plan, devices: int, divisible: bool) -> Iterator[Layout]:
    """What comes into question, the simplest first."""
    alone = devices == settings.tensor
    simple = ("none",) if alone else ("data", "shard") if divisible else ("data",)
    for sharding in simple if settings.parallel == "auto" else (settings.parallel,):
        yield Layout(devices, "none" if alone and sharding == "data" else sharding, settings.tensor)


def rows_of_step(case: Case, settings: Plan) -> int:
    """That each group reads for a step."""
    whole = case.layout.groups * case.context
    return max(1, round((settings.step or max(STEP, whole)) / whole))


def rows_at_once(case: Case, settings: Plan, capacity: float) -> int:
    """As asked, or as many as a step needs, or the largest power of two that fits; 0 where it does not fit."""
    wanted = rows_of_step(case, settings)
    if settings.batch != "auto":
        whole = dataclasses.replace(case, accumulating=settings.batch < wanted)
        return settings.batch if memory(whole, settings.batch).peak <= capacity else 0
    if memory(case, wanted).peak <= capacity:
        return wanted
    most = largest_batch(dataclasses.replace(case, accumulating=True), capacity, wanted)
    return 2 ** (most.bit_length() - 1) if most else 0


def too_large(settings: Plan, case: Case, gpu: Gpu) -> UserError:
    """What it would take, and what would do: computing again, sharding, fewer rows, more devices."""
    rows = 1 if settings.batch == "auto" else settings.batch
    waiting = dataclasses.replace(case, accumulating=rows < rows_of_step(case, settings))
    room = USABLE * gpu.memory
    size = f"{rows} row{'s' * (rows > 1)} of {case.context:,} tokens would take {sized(memory(waiting, rows).peak)}"
    what = f"{settings.model} does not fit on {settings.gpu} with {case.layout}"
    return UserError(f"{what}: {size} of each device's {sized(int(room))}. {cure(settings, case, room)}")


def cure(settings: Plan, case: Case, room: float) -> str:
    """The smallest change with which it fits."""
    name, first = (settings.gpu or "").partition(":")[0], case.layout
    smaller = rows_at_once(case, dataclasses.replace(settings, batch="auto"), room)
    if settings.batch != "auto" and smaller:
        return f"What fits: --batch {smaller}"
    for number in (first.devices * 2**doubled for doubled in range(LARGEST.bit_length())):
        for sharding, again in changes(case, number):
            layout = Layout(number, sharding, first.tensor)
            if rows_at_once(dataclasses.replace(case, layout=layout, recompute=again), settings, room):
                told = [f"--gpu {name}:{number}"] if number != first.devices else []
                told += [f"--parallel {sharding}"] if sharding != first.sharding else []
                told += ["--recompute"] if again and not case.recompute else []
                return f"What fits: {' '.join(told)}"
    return f"More of them do not help: try --tensor {NODE}, a smaller --batch or --context, or another GPU"


def changes(case: Case, number: int) -> Iterator[tuple[str, bool]]:
    """Shardings of so many devices, with and without computing again."""
    others = () if fault(case.config, case.optimizer) else ("shard",)
    for sharding in dict.fromkeys((case.layout.sharding, *others)):
        if sharding != "none" or number == case.layout.tensor:
            yield from ((sharding, again) for again in dict.fromkeys((case.recompute, True)))
