"""`hornbook bench`: what this machine can do, and what share of that training and generation reach, in two minutes.

Training FLOPs per token are 6 (non-embedding matrices + V D) + 6 L T D (`flops_per_token`), and the peak is that of the
number format trained in. Generation reads every weight once a token: its share is one of the memory's bandwidth.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hornbook import machine, models
from hornbook.config import Bench, ModelConfig, Train
from hornbook.data.batches import NO_TARGET, Batch
from hornbook.data.loader import Group
from hornbook.errors import UserError
from hornbook.generation.stream import stream_tokens
from hornbook.layers.model import LanguageModel
from hornbook.progress import Bar, duration
from hornbook.text.home import home
from hornbook.training.choices import choose
from hornbook.training.engine import PRECISIONS, Engine
from hornbook.training.optimizers import DEFAULT_RATES

STEPS, TOKENS = 8, 64
"""Steps and new tokens that are timed of a model, unless `PATIENCE` seconds are over before."""
PATIENCE = 8.0
COMPILATION = 4.0
"""Seconds to compile a layer on two cores with an empty cache, until a first model has shown it."""

Finding = tuple[str, dict[str, Any]]
"""What was measured ('machine', 'matmul', 'memory', 'estimate', 'model', 'skipped', 'end'), and its figures."""


@dataclass(frozen=True)
class Case:
    """One model to train and to generate with: `rows` of its context are a step."""

    name: str
    config: ModelConfig
    rows: int

    @property
    def tokens(self) -> int:
        return self.rows * self.config.context


def cases(device: torch.device) -> list[Case]:
    """Three sizes, small first: for a CPU of a few cores, or for a GPU."""
    no_end = {"bos": None, "eos": None}  # or a random model might stop
    tiny, small, gpt2, medium = (
        models.find_size(name).replace(**no_end) for name in ("gpt2-tiny", "gpt2-small", "gpt2", "gpt2-medium")
    )
    tiny, small = tiny.replace(vocab=8192), small.replace(vocab=8192)
    if device.type == "cuda":
        return [Case("gpt2-tiny", tiny, 64), Case("gpt2", gpt2, 16), Case("gpt2-medium", medium, 8)]
    wide = small.replace(vocab=50257, dim=512, heads=8)
    return [Case("gpt2-tiny", tiny, 16), Case("gpt2-small", small, 16), Case("GPT-2, 6 x 512", wide, 16)]


def settings_of(case: Case, model: LanguageModel, device: torch.device) -> Train:
    """What `hornbook train` would settle on for a long run of this model here."""
    recipe = getattr(models.family(case.config.family), "RECIPE", {})
    optimizer = recipe.get("optimizer", "adamw")
    compiled: Any = "no" if device.type == "mps" or machine.compile_fault(str(device)) else "yes"
    rate = recipe.get("lr", DEFAULT_RATES[optimizer])
    open_ = Train(case.name, batch=case.rows, optimizer=optimizer, lr=rate, compile=compiled, device=str(device))
    return choose(open_, model, 0, {})


def stepper(model: LanguageModel, settings: Train) -> Callable[[Batch], Tensor]:
    """Takes one step on a batch, as `hornbook train` does, and returns its loss: () in nats, on the device."""
    engine = Engine(model, settings)
    engine.objective.train()

    def step(batch: Batch) -> Tensor:
        group = Group([batch.to(engine.device)], int((batch.targets != NO_TARGET).sum()), batch.tokens.numel())
        loss, _ = engine.gradients(group)
        engine.apply(1.0)
        return loss

    return step


def training_seconds(case: Case, model: LanguageModel, settings: Train, device: torch.device, bar: Bar) -> list[float]:
    """Seconds of each optimiser step on random tokens; the first two, in which it compiles, come first."""
    step = stepper(model, settings)
    found: list[float] = []
    text = torch.randint(case.config.vocab, (case.rows, case.config.context + 1))
    batch = Batch(text[:, :-1], text[:, 1:])
    while len(found) < 4 or (len(found) < STEPS + 2 and sum(found[2:]) < PATIENCE):
        bar.show(len(found), STEPS + 2, "training" if found else "compiling")
        start = time.perf_counter()
        step(batch)
        machine.synchronize(device)
        found.append(time.perf_counter() - start)
    return found


def generation_seconds(model: LanguageModel) -> list[float]:
    """Seconds of each new token after a prompt of 16, whose own pass is left out: one row, greedy, with the cache."""
    prompt = torch.randint(model.config.vocab, (16,)).tolist()
    moments: list[float] = []
    for _ in stream_tokens(model.eval(), prompt, min(TOKENS, model.config.context - 16) + 1, temperature=0):
        moments.append(time.perf_counter())
        if len(moments) > 2 and moments[-1] - moments[0] > PATIENCE:
            break
    return [after - before for before, after in itertools.pairwise(moments)]


def rates(tokens: int, seconds: list[float]) -> dict[str, float]:
    """Tokens a second where each of these spans brought so many: the median, the lowest and the highest."""
    found = [tokens / s for s in seconds]
    return {"tokens_per_second": statistics.median(found), "lowest": min(found), "highest": max(found)}


def bytes_per_token(model: LanguageModel) -> int:
    """Bytes of the weights that a generated token reads: all but tables in which it only looks up a row."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    if model.tied:
        tables.discard(id(model.get_parameter("embedding.weight")))
    return sum(p.nbytes for p in model.parameters() if id(p) not in tables)


def rehearse(case: Case, device: torch.device, read: float) -> dict[str, Any]:
    """Generate and train with one model; `read` is the bandwidth that generation is a share of."""
    torch.manual_seed(0)
    model = models.build(case.config).to(device)
    with Bar(case.name) as bar:
        bar.show(0, 1, "generating")
        generation, weights = rates(1, generation_seconds(model)), bytes_per_token(model)
        settings = settings_of(case, model, device)
        seconds = training_seconds(case, model, settings, device, bar)
    training, flops = rates(case.tokens, seconds[2:]), model.flops_per_token(case.config.context)
    peak = machine.reference_peak(device, PRECISIONS[settings.precision], home() / "machine.json")
    share = training["tokens_per_second"] * flops / peak.flops
    return {
        "name": case.name,
        "parameters": model.parameter_count(),
        "vocabulary": case.config.vocab,
        "context": case.config.context,
        "tokens_per_step": case.tokens,
        "optimizer": settings.optimizer,
        "precision": settings.precision,
        "compiled": settings.compile == "yes",
        "threads": settings.threads,
        "attention": settings.attention,
        "first_steps": sum(seconds[:2]),
        "training": training
        | {"flops_per_token": flops, "peak_flops": peak.flops, "peak_source": peak.source, "share_of_peak": share},
        "generation": generation
        | {"bytes_per_token": weights, "share_of_bandwidth": generation["tokens_per_second"] * weights / read},
    }


def expected_seconds(case: Case, peak: float, read: float, compilation: float) -> float:
    """About how long `rehearse` will take: a third of the peaks, and so many seconds of compiling a layer."""
    with torch.device("meta"):
        model = models.build(case.config)
    step = case.tokens * model.flops_per_token(case.config.context) / (peak / 3)
    steps = max(4.0, min(STEPS + 2, 2 + PATIENCE / step)) * step
    layers = getattr(case.config, "layers", 1)
    token = bytes_per_token(model) / (read / 3) + layers * 5e-4
    return steps + min(PATIENCE, TOKENS * token) + layers * compilation * machine.can_compile()


def products(device: torch.device) -> Iterator[dict[str, Any]]:
    """Matrix products by number format; float32 also in torch's quicker way, where that changes something."""
    quick = "high" if device.type == "cuda" else "medium"  # TF32; oneDNN's choice
    wanted = [(torch.float32, "highest"), (torch.float32, quick), (torch.bfloat16, None)]
    wanted += [(torch.float16, None)] if device.type == "cuda" else []
    best = 0.0
    for dtype, setting in wanted:
        speeds = machine.matmul_speeds(device, dtype, setting)
        if setting == quick and max(speeds) < 1.1 * best:
            continue
        best = max(speeds)
        figures = {"flops": best, "median": statistics.median(speeds), "lowest": min(speeds)}
        yield {"dtype": str(dtype).removeprefix("torch."), "float32_precision": setting, **figures}


def findings(settings: Bench, chosen: list[Case] | None = None) -> Iterator[Finding]:
    """Everything in turn, as soon as it is known. A model that would not fit into the minutes is skipped."""
    began = time.monotonic()
    device = torch.device(machine.check_device(settings.device or str(machine.pick_device())))
    yield "machine", {"machine": machine.describe(device), "device": str(device), "torch": torch.__version__}
    peak, compilation = 0.0, COMPILATION
    for figures in products(device):
        peak = max(peak, figures["flops"])
        yield "matmul", figures
    memory = machine.memory_bandwidth(device)
    yield "memory", dataclasses.asdict(memory)
    machine.keep_freed_memory()
    chosen = cases(device) if chosen is None else chosen
    expected = [expected_seconds(case, peak, memory.read, compilation) for case in chosen]
    yield "estimate", {"seconds": sum(expected)}
    for case in chosen:
        left = max(0.0, 60 * settings.minutes - (time.monotonic() - began))
        needed = expected_seconds(case, peak, memory.read, compilation)
        if needed > left:
            why = f"it takes about {duration(needed)}, and {duration(left)} are left (--minutes)"
            yield "skipped", {"name": case.name, "reason": why}
            continue
        try:
            figures = rehearse(case, device, memory.read)
        except (torch.OutOfMemoryError, UserError) as error:
            yield "skipped", {"name": case.name, "reason": str(error).splitlines()[0]}
            continue
        compilation = figures["first_steps"] / getattr(case.config, "layers", 1)
        yield "model", figures
    yield "end", {"seconds": time.monotonic() - began}


def gathered(found: list[Finding]) -> dict[str, Any]:
    """The findings as one object, for JSON; `finished` is false where the end was not reached."""
    result: dict[str, Any] = {"finished": False, "matmul": [], "model": [], "skipped": []}
    for kind, figures in found:
        if kind in ("matmul", "model", "skipped"):
            result[kind].append(figures)
        elif kind in ("machine", "end"):
            result |= figures | {"finished": kind == "end"}
        else:
            result[kind] = figures
    return result


def told(kind: str, figures: dict[str, Any]) -> str:
    """A finding as text; nothing for one that says nothing new."""
    f = figures
    if kind == "machine":
        return f"{f['machine']}, torch {f['torch']}\n\n{'matrix products':<16}{'TFLOP/s':>11}{'median':>9}{'lowest':>9}"
    if kind == "matmul":
        way = f["float32_precision"] or "highest"
        name = f["dtype"] + {"highest": "", "high": ", TF32"}.get(way, f", {way}")
        return f"{name:<16}{f['flops'] / 1e12:>11.3f}{f['median'] / 1e12:>9.3f}{f['lowest'] / 1e12:>9.3f}"
    if kind == "memory":
        size = f"{f['bytes'] / 2**30:.1f} GiB each"
        return f"\nmemory: {f['read'] / 1e9:.1f} GB/s read (matrix times vector), {f['copy'] / 1e9:.1f} copied, {size}"
    if kind == "estimate":
        return f"models: about {duration(f['seconds'])}\n\n{HEAD}"
    if kind == "skipped":
        return f"{f['name']:<15}skipped: {f['reason']}"
    if kind == "model":
        training, generation = f["training"], f["generation"]
        trained = f"{spread(training):>31}{training['share_of_peak']:>9.1%}"
        generated = f"{spread(generation):>25}{generation['share_of_bandwidth']:>14.1%}"
        return f"{f['name']:<15}{f['parameters'] / 1e6:>8.1f} M{trained}{generated}"
    return FOOT.format(duration(f["seconds"])) if kind == "end" else ""


def spread(rate: dict[str, float]) -> str:
    """Tokens a second: the median, and between what single steps lay."""
    return f"{rate['tokens_per_second']:,.0f} ({rate['lowest']:,.0f} to {rate['highest']:,.0f})"


HEAD = f"{'model':<15}{'parameters':>10}{'training tokens/s':>31}{'of peak':>9}{'generated/s':>25}{'of bandwidth':>14}"
FOOT = """
of peak: tokens/s x FLOPs per token / the peak in the number format trained in, the best that was ever measured here;
FLOPs per token = 6 (non-embedding matrices + V D) + 6 L T D. of bandwidth: tokens/s x bytes of weights / the read
bandwidth; a model that fits into the processor's cache can be beyond 100 %. Medians; in brackets what single
steps and tokens reached. {} in all."""
