"""`hornbook plan`: from a model, a number of tokens and some GPUs (or this machine) to memory, time, cost and loss."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hornbook import models
from hornbook.config import ModelConfig, Plan
from hornbook.errors import UserError
from hornbook.formats.filling import build_empty
from hornbook.inspection.configs import find_config
from hornbook.inspection.grid import sized
from hornbook.planning.devices import USABLE, find_gpu
from hornbook.planning.fitting import arranged, recipe
from hornbook.planning.layout import Layout, share_of
from hornbook.planning.local import Probe, probe, survey
from hornbook.planning.memory import Case, Memory, largest_batch, memory
from hornbook.planning.scaling_laws import ORIGINAL, REFIT, RULE, SCOPE, remark, scope
from hornbook.planning.timing import Step, Work, time_step

DRAW = 0.8
"""Share of the board's power that is drawn on average while a model trains."""


@dataclass(frozen=True)
class Forecast:
    """What is to be expected. Bytes, seconds, dollars, kWh."""

    model: str
    parameters: int
    tokens: int
    device: str
    devices: int
    layout: Layout
    precision: str
    optimizer: str
    recompute: bool
    context: int
    rows: int
    """Of a batch: what a group of devices computes at once."""
    batches: int
    """To a step, of each group."""
    steps: int
    memory: Memory
    capacity: float
    largest: int
    """Rows of the largest batch that fits."""
    step_seconds: float
    waited: float
    """Seconds of a step in which a device waits for others."""
    flops_per_token: int
    peak: float
    """FLOP/s of one device."""
    how: str
    """Where the time is from."""
    price: float | None
    priced: str
    power: float | None

    @property
    def step_tokens(self) -> int:
        return self.rows * self.batches * self.layout.groups * self.context

    @property
    def seconds(self) -> float:
        return self.steps * self.step_seconds

    @property
    def flops(self) -> float:
        return float(self.tokens) * self.flops_per_token

    @property
    def mfu(self) -> float:
        """Share of all devices' peak, waiting included."""
        return self.step_tokens * self.flops_per_token / (self.devices * self.peak * self.step_seconds)

    @property
    def device_hours(self) -> float:
        return self.devices * self.seconds / 3600

    @property
    def cost(self) -> float | None:
        return None if self.price is None else self.device_hours * self.price

    @property
    def energy(self) -> float | None:
        """Of the boards alone."""
        return None if self.power is None else DRAW * self.power * self.device_hours / 1000

    @property
    def loss(self) -> float:
        """Nats a token, by the refit."""
        return REFIT.loss(self.parameters, self.tokens)

    @property
    def remark(self) -> str:
        return remark(self.parameters, self.tokens)

    def summary(self) -> dict[str, Any]:
        """All of it, for JSON."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("memory", "layout")}
        names = ("step_tokens", "seconds", "flops", "mfu", "device_hours", "cost", "energy")
        best = REFIT.best_parameters(self.flops)
        return (
            own
            | {"parallel": self.layout.sharding, "tensor": self.layout.tensor}
            | {name: getattr(self, name) for name in names}
            | {"memory": dataclasses.asdict(self.memory)}
            | {
                "compute_optimal": {
                    "approach_1_tokens": RULE * self.parameters,
                    "approach_3_tokens": REFIT.best_tokens(self.parameters),
                    "parameters_for_this_compute": best,
                    "tokens_for_this_compute": self.flops / (6 * best),
                    "remark": self.remark,
                },
                "loss": {
                    "refit": self.loss,
                    "refit_source": REFIT.source,
                    "original": ORIGINAL.loss(self.parameters, self.tokens),
                    "original_source": ORIGINAL.source,
                    "scope": SCOPE,
                    "outside": scope(self.parameters, self.tokens),
                },
            }
        )


def make(settings: Plan) -> Forecast:
    """The forecast that is asked for. UserError for what does not fit, with what would."""
    config = config_of(settings)
    return on_gpus(settings, config) if settings.gpu else on_this_machine(settings, config)


def config_of(settings: Plan) -> ModelConfig:
    """Of a named size, a run, or a config.json, with the context that is asked for."""
    path = Path(settings.model).expanduser()
    source = str(path.parent) if path.name == "config.json" and path.is_file() else settings.model
    config = find_config(source, settings.vocab)
    kind = models.family(config.family).Model
    if kind.counted or kind.reads_source or config.labels:
        why = "is counted, in one pass over the text" if kind.counted else "has sources of any length"
        why = "tells classes apart" if config.labels else why
        raise UserError(f"{settings.model} {why}: a plan is for models that learn to predict a text's tokens")
    return config.replace(context=max(config.context, settings.context or 0))


def on_gpus(settings: Plan, config: ModelConfig) -> Forecast:
    name, gpu, devices = find_gpu(settings.gpu or "")
    case, rows, batches = arranged(settings, config, gpu, devices)
    layout = case.layout
    model = build_empty(config)
    flops = model.flops_per_token(case.context)
    numbers = build_empty(share_of(config, layout.tensor)).parameter_count()
    shape = getattr(config, "dim", 0), getattr(config, "layers", 0)
    head = 6 * model.readout.weight.numel()
    work = Work(flops, numbers, rows, batches, case.context, *shape, case.recompute, head, case.precision)
    step: Step = time_step(work, gpu, layout, settings.mfu)
    price = gpu.price if settings.price is None else settings.price
    whole = rows * batches * layout.groups * case.context
    return Forecast(
        settings.model,
        model.parameter_count(),
        settings.count,
        name,
        devices,
        layout,
        case.precision,
        case.optimizer,
        case.recompute,
        case.context,
        rows,
        batches,
        math.ceil(settings.count / whole),
        memory(case, rows),
        USABLE * gpu.memory,
        largest_batch(case, USABLE * gpu.memory),
        step.seconds,
        step.tensor + step.waited,
        flops,
        gpu.peak(case.precision),
        f"{settings.mfu:.0%} of the data sheet's peak while computing (--mfu)",
        price,
        gpu.priced if settings.price is None else "--price",
        gpu.power,
    )


def on_this_machine(settings: Plan, config: ModelConfig) -> Forecast:
    """One device: the best one here."""
    if settings.tensor > 1 or settings.parallel not in ("auto", "none"):
        raise UserError("--parallel and --tensor are for several GPUs: name them, as in --gpu h100:8")
    context = settings.context or config.context
    rows = 16 if settings.batch == "auto" else settings.batch
    batches = max(1, round((settings.step or rows * context) / (rows * context)))
    steps = math.ceil(settings.count / (rows * context * batches))
    optimizer = recipe(settings, config)
    here = survey(config, settings, rows, steps * batches, optimizer)
    chosen = here.settings
    kind = "bfloat16" if chosen.precision == "float16" else chosen.precision
    many, kernel = batches > 1, chosen.attention
    case = Case(config, Layout(), context, kind, optimizer, settings.recompute, many, kernel, here.base)
    expected = memory(case, rows)
    largest = largest_batch(case, here.capacity)
    if expected.peak > here.capacity:
        raise UserError(not_here(settings, case, expected, here.capacity, largest))
    found = probe(config, here, context, lambda part, few: fits_twice(case, part, few, here.capacity))
    needed = corrected(case, expected, found, here.base)
    if needed.peak > here.capacity:
        rate = (needed.peak - here.base) / (expected.peak - here.base)
        room = here.base + (here.capacity - here.base) / rate
        raise UserError(not_here(settings, case, needed, here.capacity, largest_batch(case, room)))
    model = build_empty(config)
    return Forecast(
        settings.model,
        model.parameter_count(),
        settings.count,
        here.name,
        1,
        case.layout,
        chosen.precision,
        optimizer,
        settings.recompute,
        context,
        rows,
        batches,
        steps,
        needed,
        here.capacity,
        largest,
        batches * found.seconds,
        0.0,
        model.flops_per_token(context),
        here.peak,
        found.how,
        settings.price,
        "--price" if settings.price is not None else "",
        None,
    )


def fits_twice(case: Case, part: ModelConfig, rows: int, capacity: float) -> bool:
    """Whether so many rows of a part of the model take less than half of what may be taken."""
    return memory(dataclasses.replace(case, config=part), rows).peak <= capacity / 2


def corrected(case: Case, expected: Memory, found: Probe, base: int) -> Memory:
    """The same, with as much more or less as the process took in the probe: the allocator keeps what is freed."""
    if found.tried is None or not found.peak:
        return expected
    part, rows = found.tried
    tried = memory(dataclasses.replace(case, config=part), rows).peak - base
    factor = (found.peak - base) / tried
    return dataclasses.replace(expected, peak=base + round(factor * (expected.peak - base)))


def not_here(settings: Plan, case: Case, needed: Memory, capacity: float, largest: int) -> str:
    """The line for a model that this machine cannot train so."""
    what = f"{settings.model} does not fit here: {sized(needed.peak)} of {sized(int(capacity))} free."
    if largest:
        return f"{what} What fits: --batch {largest}"
    again = largest_batch(dataclasses.replace(case, recompute=True), capacity)
    return f"{what} What fits: --recompute --batch {again}" if again else f"{what} Plan for GPUs, as in --gpu h100:8"
