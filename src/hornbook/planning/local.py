"""What a run will be on this machine: a few real steps of as much of the model as a second allows.

The same engine, with the same choices, as `hornbook train`. Where the whole model is too slow for that, steps of two
depths tell what a block takes; where even two blocks are, the measured product speed and the share of it that training
here usually reaches.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch

from hornbook import machine, models
from hornbook.config import ModelConfig, Plan, Train
from hornbook.data.batches import Batch
from hornbook.data.loader import Group
from hornbook.formats.filling import build_empty
from hornbook.layers.model import LanguageModel
from hornbook.training.choices import choose
from hornbook.training.engine import PRECISIONS, Engine
from hornbook.training.optimizers import DEFAULT_RATES

PATIENCE = 1.0
"""Seconds that one probed step may be expected to take."""
LEAST, MOST, ENOUGH = 2, 6, 2.5
"""Timed steps, after one that is not, and the seconds after which no further one begins."""
USUAL = 0.35
"""Share of the products' speed that a step here usually reaches: `hornbook bench` prints it."""
COMPILED = 0.7
"""A compiled step's share of an eager one (docs/log.md: llama-tiny, 15,800 and 21,500 tokens a second)."""
EVALUATED = 32
"""Rows that an evaluation reads at once."""
LIBRARIES = 240e6
"""Bytes that kernels, threads, evaluations, checkpoints and what the allocator leaves unused take beside tensors once
steps are taken: 130 to 390 MB in ten runs of benchmarks/plan_agreement.py on two days."""


@dataclass(frozen=True)
class Here:
    """This machine, as a plan needs it."""

    device: str
    name: str
    capacity: float
    """Bytes that a run may take."""
    base: int
    """Bytes that the process has before there is a model."""
    peak: float
    """FLOP/s of products in the run's precision, measured or a data sheet's."""
    settings: Train
    """Nothing is left open in them."""


class Seconds(NamedTuple):
    """Of one step."""

    gradients: float
    """In proportion to the rows."""
    optimizer: float
    """Whatever they are."""


def survey(config: ModelConfig, asked: Plan, rows: int, steps: int, optimizer: str) -> Here:
    """Measure what does not depend on the steps. Half a second to two."""
    import hornbook.training.pretrain  # noqa: F401 (a run has it in memory)

    device = torch.device(machine.check_device(asked.device or str(machine.pick_device())))
    on_cpu = device.type == "cpu"
    base = machine.resident_memory() + int(LIBRARIES) if on_cpu else 0
    capacity = machine.available_memory(device) + (machine.resident_memory() if on_cpu else 0)
    wanted = Train(
        "a plan",
        steps=steps,
        batch=rows,
        optimizer=optimizer,  # type: ignore[arg-type]
        lr=DEFAULT_RATES[optimizer],
        context=asked.context,
        precision=asked.precision,
        recompute=asked.recompute,
        attention=asked.attention,
        device=str(device),
    )
    settings = choose(wanted, build_empty(config), 0, {})
    if settings.threads:
        torch.set_num_threads(settings.threads)
    assert settings.float32_matmul != "auto"
    with machine.float32_precision(settings.float32_matmul):
        peak = machine.reference_peak(device, PRECISIONS[settings.precision]).flops
    return Here(str(device), machine.describe(device), capacity, base, peak, settings)


@dataclass(frozen=True)
class Probe:
    """What was found by trying."""

    seconds: float
    """Of a step of the whole model."""
    how: str
    tried: tuple[ModelConfig, int] | None = None
    """The model and the rows that were tried, the largest of them last."""
    peak: int = 0
    """Bytes that this process held at most then; 0 where it held more before, or none were tried."""


def probe(config: ModelConfig, here: Here, context: int, room: Callable[[ModelConfig, int], bool]) -> Probe:
    """Steps of as much of the model as is quick. `room` says what fits into memory."""
    rows, layers = here.settings.batch, getattr(config, "layers", 0)
    assert rows != "auto"
    fast = COMPILED if here.settings.compile == "yes" else 1.0
    if deepest(config, here, context, rows) >= max(layers, 1) and room(config, rows):
        with Watched(here) as watched:
            seconds = fast * sum(step_seconds(config, here, context, rows))
        return Probe(seconds, "steps of the whole model" + told(fast), (config, rows), watched.peak)
    few, depth = fewer(config, here, context, rows)
    part = config.replace(layers=depth)
    if not room(part, few):
        flops = build_empty(config).flops_per_token(context)
        how = f"{USUAL:.0%} of the measured product speed: the model is too large to try"
        return Probe(fast * rows * context * flops / (USUAL * here.peak), how)
    low = step_seconds(config.replace(layers=1), here, context, few)
    with Watched(here) as watched:
        high = step_seconds(part, here, context, few)
    deeper = (layers - depth) / (depth - 1)
    whole = Seconds(*(b + deeper * max(b - a, 0.0) for a, b in zip(low, high, strict=True)))
    how = f"steps of 1 and {depth} of {layers} layers, {few} of {rows} rows" + told(fast)
    return Probe(fast * (whole.gradients * rows / few + whole.optimizer), how, (part, few), watched.peak)


class Watched:
    """What the process holds at most in what is done within, where that is more than before."""

    def __init__(self, here: Here) -> None:
        self.device, self.peak = torch.device(here.device), 0

    def __enter__(self) -> Self:
        self.before = machine.peak_memory(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        most = machine.peak_memory(self.device)
        self.peak = most if most > self.before else 0


def told(fast: float) -> str:
    return "" if fast == 1.0 else f"; compiled counted as {fast:g} times that"


def deepest(config: ModelConfig, here: Here, context: int, rows: int) -> int:
    """How many layers a patient step has."""
    layers = getattr(config, "layers", 0)
    if not layers:
        return 1
    for depth in (layers, layers // 2, layers // 4, 2):
        flops = build_empty(config.replace(layers=max(depth, 1))).flops_per_token(context)
        if rows * context * flops <= PATIENCE * USUAL * here.peak:
            return depth
    return 0


def fewer(config: ModelConfig, here: Here, context: int, rows: int) -> tuple[int, int]:
    """Rows, halved until two layers or more are patient, and so many layers."""
    while rows > 1 and deepest(config, here, context, rows) < 2:
        rows //= 2
    return rows, max(2, deepest(config, here, context, rows))


def step_seconds(config: ModelConfig, here: Here, context: int, rows: int) -> Seconds:
    """Medians over a few steps on random tokens, uncompiled."""
    device = torch.device(here.device)
    model = models.build(config).to(device)
    engine = Engine(model, dataclasses.replace(here.settings, batch=rows, rows=None, compile="no"))
    engine.objective.train()
    text = torch.randint(config.vocab, (rows, context + 1))
    group = Group([Batch(text[:, :-1], text[:, 1:]).to(device)], rows * context, rows * context)
    found: list[tuple[float, float]] = []
    while len(found) < LEAST + 1 or (len(found) < MOST + 1 and sum(map(sum, found)) < ENOUGH):
        began = time.perf_counter()
        engine.gradients(group)
        machine.synchronize(device)
        between = time.perf_counter()
        engine.apply(1.0)
        machine.synchronize(device)
        found.append((between - began, time.perf_counter() - between))
    engine.drop()
    judge(model, config, context)
    return Seconds(*(statistics.median(times) for times in zip(*found[1:], strict=True)))


def judge(model: LanguageModel, config: ModelConfig, context: int) -> None:
    """One pass as an evaluation makes it, for its memory."""
    text = torch.randint(config.vocab, (EVALUATED, context), device=model.device)
    with torch.inference_mode():
        model.eval().log_prob(text, text)
