"""What a run leaves open for the machine to decide: measured once, said, saved with the run, and kept on resuming."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch

from hornbook import machine
from hornbook.adapt.lora import training_flops
from hornbook.config import Learning
from hornbook.errors import UserError
from hornbook.layers.attention import Where
from hornbook.layers.model import LanguageModel
from hornbook.layers.transformer import band
from hornbook.progress import duration, say
from hornbook.training.batch_size import Lesson, find_batch
from hornbook.training.engine import KERNELS, PRECISIONS
from hornbook.training.prepare import row_length

Settings = TypeVar("Settings", bound=Learning)

LONG = 2048
"""Positions above which a CPU is not asked to write out all scores."""
SHORT = 240
"""Seconds of a run below which torch.compile, half a minute or more, is not worth its time."""


def choose(
    settings: Settings, model: LanguageModel, tokens: int, earlier: dict[str, Any], lesson: Lesson | None = None
) -> Settings:
    """`settings` with nothing left open: as `earlier`, the saved settings of a run that carries on, else measured.

    `tokens` are those of an epoch; `lesson` makes batches of what is learnt, where that is not a text's next tokens.
    """
    for name, measure in (CHOICES | {"batch": partial(find_batch, lesson=lesson)}).items():
        if getattr(settings, name) in (None, "auto"):
            value = earlier[name] if name in earlier else measure(settings, model, tokens)
            settings = dataclasses.replace(settings, **{name: value})
    return settings


def tried(settings: Settings, asked: Settings, earlier: dict[str, Any]) -> Settings:
    """What was chosen, without torch.compile where that turns out not to work; `asked` as given to `choose`.

    UserError where that was asked for, or where the run that carries on was computed with it.
    """
    if settings.compile != "yes" or (fault := machine.compile_fault(str(settings.device))) is None:
        return settings
    said = f"torch.compile does not work here ({fault})"
    if earlier.get("compile") == "yes":
        raise UserError(f"{said}: this run was computed with it, and carries on only where it works")
    if asked.compile == "yes":
        raise UserError(f"{said}: --compile no does without it")
    say(f"{said}: running without it, about half as fast")
    return dataclasses.replace(settings, compile="no")


def describe(settings: Learning) -> str:
    """The engine in one line."""
    if settings.device == "cpu":
        parts = [machine.number_of(settings.threads or 1, "thread"), "freed memory kept"]
    else:
        parts = [str(settings.device)]
    parts += [settings.precision, f"{settings.attention} attention"]
    parts += ["torch.compile"] if settings.compile == "yes" else []
    parts += [f"float32 products {settings.float32_matmul}"] if settings.float32_matmul != "highest" else []
    parts += ["activations computed again"] if settings.recompute else []
    return ", ".join(parts)


def choose_precision(settings: Learning, model: LanguageModel, tokens: int) -> str:
    """bfloat16 where it is faster; float16, whose losses are scaled, on GPUs that lack it."""
    kind = torch.device(settings.device or "cpu").type
    if machine.bf16_pays(kind):
        return "bfloat16"
    return "float16" if kind == "cuda" else "float32"


def choose_threads(settings: Learning, model: LanguageModel, tokens: int) -> int:
    """OMP_NUM_THREADS where it is set, else the fastest."""
    return torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else machine.best_threads()


def choose_float32_matmul(settings: Learning, model: LanguageModel, tokens: int) -> str:
    """TF32 on a GPU; on a CPU, for runs in float32, oneDNN's way where it is faster and as exact."""
    kind = torch.device(settings.device or "cpu").type
    if kind == "cuda":
        return "high"
    return machine.fastest_exact_products() if settings.precision == "float32" and kind == "cpu" else "highest"


def choose_compile(settings: Learning, model: LanguageModel, tokens: int) -> str:
    """Whether torch.compile pays: only for a run of several minutes.

    The length of a run in steps is judged by its operations, at 200 GFLOP/s on a CPU and 50 TFLOP/s on a GPU, so that
    the answer is always the same.
    """
    if model.reads_source:  # its shapes follow from each batch's sources
        return "no"
    if settings.find_lr:  # a hundred steps are too few for it to pay
        return "no"
    if settings.minutes:
        seconds = 60 * settings.minutes
    else:
        context = row_length(settings, model.config)
        read = (settings.epochs or 0) * tokens
        if settings.steps:
            assert settings.batch != "auto"
            read = settings.steps * settings.batch * settings.accumulate * context
        seconds = read * training_flops(model, context) / (2e11 if settings.device == "cpu" else 5e13)
    if seconds <= SHORT:
        return "no"
    if not machine.can_compile():
        say("no C++ compiler here: running without torch.compile, about half as fast")
        return "no"
    say(
        f"torch.compile: half a minute or more at the start (a few seconds where it was done before), then up to twice "
        f"as fast; it pays in a run of about {duration(seconds)} (--compile no leaves it out)"
    )
    return "yes"


def choose_attention(settings: Learning, model: LanguageModel, tokens: int) -> str:
    """The kernel that is fastest, forward and backward, on this run's shapes, of those that come into question."""
    context, heads = row_length(settings, model.config), getattr(model.config, "heads", 1)
    apart = getattr(settings, "apart", False)
    if not any(hasattr(module, "kernel") for module in model.modules()):
        return "fused"
    if settings.device == "cpu" and context <= LONG:
        names = ["fused", "written-out"]
    elif str(settings.device).startswith("cuda") and apart and settings.compile == "yes":
        names = ["fused", "flex"]
    else:
        return "fused"
    assert settings.batch != "auto"
    widths = (getattr(module, "width", None) for module in model.modules() if hasattr(module, "kernel"))
    width = next(filter(None, widths), model.config.dim // heads)  # type: ignore[attr-defined]
    shape = (min(16, settings.rows or settings.batch), heads, context, width)
    seconds = {name: attention_seconds(name, shape, settings) for name in names}
    return min(seconds, key=seconds.__getitem__)


def attention_seconds(name: str, shape: tuple[int, ...], settings: Learning) -> float:
    """Seconds of one pass and its gradients, the best of several; infinite where the kernel does not work here."""
    device, generator = torch.device(settings.device or "cpu"), torch.Generator().manual_seed(0)
    dtype = PRECISIONS[settings.precision]
    query, key, value = (torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for _ in range(3))
    rows, _, length, _ = shape
    segments, mask = None, None
    if getattr(settings, "apart", False):
        segments = torch.arange(length, device=device).expand(rows, length) // max(1, length // 4)
    if segments is not None:
        mask = (segments[:, None, :, None] == segments[:, None, None, :]) & band(length, None, device)
    kernel = torch.compile(KERNELS[name], dynamic=False) if name == "flex" else KERNELS[name]
    best = float("inf")
    try:
        for _ in range(6):
            machine.synchronize(device)
            began = time.perf_counter()
            mixed = kernel(query, key, value, Where(mask, causal=True, segments=segments), 0.0)
            mixed.float().sum().backward()
            machine.synchronize(device)
            best = min(best, time.perf_counter() - began)
    except (RuntimeError, NotImplementedError) as error:  # what torch has no kernel for, here or yet
        say(f"{name} attention does not work here ({str(error).splitlines()[0][:100]})")
        return float("inf")
    return best


CHOICES: dict[str, Callable[[Learning, LanguageModel, int], Any]] = {
    "precision": choose_precision,
    "threads": choose_threads,
    "float32_matmul": choose_float32_matmul,
    "batch": find_batch,
    "compile": choose_compile,
    "attention": choose_attention,
}
"""Field of Learning -> what settles it, in the order in which one needs the other."""
