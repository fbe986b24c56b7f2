"""`hornbook train`: a fresh model of any rung, from text to a run folder."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import torch

from hornbook import machine, models
from hornbook.checkpoint import Run, read_json, write_json
from hornbook.config import Generate, Train
from hornbook.data.batches import NO_TARGET, Batches
from hornbook.data.masking import mask_token, mask_tokens
from hornbook.data.shards import Shard, open_split
from hornbook.evaluation.pseudo import pseudo_perplexity
from hornbook.evaluation.score import score
from hornbook.generation.stream import continuation
from hornbook.layers.model import LanguageModel
from hornbook.progress import Bar, duration, say
from hornbook.text.corpora import open_corpus
from hornbook.text.tokenizer_store import obtain_tokenizer
from hornbook.text.tokenizers import Tokenizer
from hornbook.training.loop import State, Watch, fit
from hornbook.training.objective import Objective
from hornbook.training.optimizers import DEFAULT_RATES, Optimizers
from hornbook.training.prepare import (
    choose_kernels,
    make_batches,
    precision,
    resolve_config,
)

QUICK = 20_000
"""Validation tokens that an evaluation during training looks at."""


def train(settings: Train) -> dict[str, Any]:
    """Train, or carry on, the run that `settings` describe; returns its summary. Raises UserError and Interrupted."""
    settings = resolve(settings)
    corpus = open_corpus(settings.data, settings.column)
    tokenizer = obtain_tokenizer(settings.tokenizer, corpus, settings.vocab)
    shards = {split: open_split(corpus, tokenizer, split) for split in ("train", "validation")}
    config = resolve_config(settings, tokenizer)
    facts = {"text": corpus.measure("train").fingerprint, "tokenizer_hash": tokenizer.hash}
    assert settings.out is not None
    run = Run(settings.out)
    carried_on = run.begin(dataclasses.asdict(settings) | facts, changeable=("out",))
    if (run.folder / "summary.json").exists():
        say(f"{run.folder} is finished")
        return read_json(run.folder / "summary.json")
    torch.manual_seed(settings.seed)
    model = models.build(config)
    model.tokenizer = tokenizer
    with Bar(settings.model) as bar:
        if not carried_on:
            bar.say(corpus.describe("train", "validation"))
        work = count if hasattr(model, "fit") else learn
        summary = work(settings, model, tokenizer, shards, run, bar)
    summary |= {"model": settings.model, "family": config.family, "data": corpus.name}
    summary["parameters"] = model.parameter_count()
    write_json(run.folder / "summary.json", summary)
    return summary


def resolve(settings: Train) -> Train:
    """Fill in what was left open: the folder, the optimiser and its rate, the length, the device."""
    if settings.steps is None and settings.epochs is None and settings.minutes is None:
        settings = dataclasses.replace(settings, epochs=1.0)
    data = "stdin" if settings.data == "-" else Path(settings.data).stem
    recipe = getattr(models.family(models.find_size(settings.model).family), "RECIPE", {})  # counted rungs have none
    optimizer = settings.optimizer or recipe.get("optimizer", "adamw")
    rate = recipe["lr"] if optimizer == recipe.get("optimizer") else DEFAULT_RATES[optimizer]
    return dataclasses.replace(
        settings,
        out=settings.out or f"runs/{settings.model}-{data}",
        optimizer=optimizer,
        lr=rate if settings.lr is None else settings.lr,
        device=machine.check_device(settings.device or str(machine.pick_device())),
    )


def count(
    settings: Train, model: LanguageModel, tokenizer: Tokenizer, shards: dict[str, Shard], run: Run, bar: Bar
) -> dict[str, Any]:
    """Fit a counted model: one pass over the text."""
    began = time.monotonic()
    model.fit(shards["train"].tokens)  # type: ignore[operator]
    seconds = time.monotonic() - began
    scores = score(model, shards["validation"], progress=lambda done, total: bar.show(done, total, "evaluating"))
    targets = len(shards["train"].tokens) - 1
    sample = speak(settings, model)
    run.log(step=0, seconds=seconds, sample=sample, **scores.summary())
    run.save(0, model, tokenizer, {}, {}, best=True)
    return {"seconds": seconds, "targets": targets, "sample": sample, "validation": scores.summary()}


def learn(
    settings: Train, model: LanguageModel, tokenizer: Tokenizer, shards: dict[str, Shard], run: Run, bar: Bar
) -> dict[str, Any]:
    """Train a neural model by the loop."""
    began = time.monotonic()
    device = torch.device(settings.device or "cpu")
    machine.keep_freed_memory()
    model.to(device)
    choose_kernels(model, device, model.config.context)
    sampler, batch = make_batches(settings, model.config, model, shards["train"], tokenizer)
    steps = settings.steps or (
        math.ceil(sampler.per_epoch * settings.epochs / settings.accumulate) if settings.epochs else None
    )
    assert settings.lr is not None
    assert settings.optimizer is not None
    optimizers = Optimizers(settings.optimizer, model, settings.lr, settings.weight_decay, settings.beta2)
    state = State()
    if (saved := run.restore(model)) is not None:
        tensors, facts = saved
        optimizers.restore({k.removeprefix("optimizer."): v for k, v in tensors.items() if k.startswith("optimizer.")})
        torch.set_rng_state(tensors["rng"])
        state = State(**facts)
        run.cut_log(lambda line: line["step"] <= state.step)
        bar.say(f"carrying on at step {state.step}")
    autocast = precision(settings, device)
    objective: torch.nn.Module = Objective(model).train()
    if compiles(settings, model, steps):
        objective = torch.compile(objective)  # type: ignore[assignment]

    def after_step(state: State, loss: float, progress: float) -> None:
        speed = state.targets / max(state.seconds, 1e-9)
        bar.show(progress, 1, f"step {state.step}  loss {loss:.3f}  {speed:,.0f} tokens/s")
        run.log(step=state.step, loss=loss, seconds=state.seconds, targets=state.targets)

    def evaluate(state: State) -> float:
        with autocast():
            value, figures = quick_score(settings, model, tokenizer, shards["validation"])
        sample = speak(settings, model) if model.causal else None
        run.log(step=state.step, seconds=state.seconds, sample=sample, **figures)
        told = "  ".join(f"{name.replace('_', ' ')} {number:.3f}" for name, number in figures.items())
        bar.say(f"step {state.step}  {told}" + (f"  {sample!r}" if sample else ""))
        return value

    def save(state: State, best: bool) -> None:
        tensors = {f"optimizer.{k}": v for k, v in optimizers.tensors().items()}
        run.save(
            state.step, model, tokenizer, tensors | {"rng": torch.get_rng_state()}, dataclasses.asdict(state), best
        )

    state.seconds += time.monotonic() - began
    fit(objective, batch, optimizers, settings, steps, state, Watch(after_step, evaluate, save), autocast)
    result: dict[str, Any] = {
        "steps": state.step,
        "seconds": state.seconds,
        "targets": state.targets,
        "mean_loss": state.nats / max(state.targets, 1),
        "tokens_per_second": state.targets / state.seconds,
        "samples_per_second": state.step * settings.accumulate * settings.batch / state.seconds,
        "steps_per_second": state.step / state.seconds,
        "flops": state.targets * model.flops_per_token(model.config.context),
    }
    result["sample"] = speak(settings, model) if model.causal else None
    if model.causal:
        whole = score(model, shards["validation"], progress=lambda done, total: bar.show(done, total, "evaluating"))
        result["validation"] = whole.summary()
    else:
        result["pseudo_perplexity"] = pseudo_perplexity(model, shards["validation"], mask_token(tokenizer))
    bar.say(
        f"{state.step} steps in {duration(state.seconds)}: mean loss {result['mean_loss']:.3f}, "
        f"{result['samples_per_second']:.1f} samples/s, {result['steps_per_second']:.2f} steps/s, "
        f"{result['flops']:.3g} FLOPs"
    )
    return result


def compiles(settings: Train, model: LanguageModel, steps: int | None) -> bool:
    """Whether to compile: it costs about a minute, so only a run of several minutes gains by it.

    The length of a run in steps is judged by its operations, at 200 GFLOP/s, so that the answer is always the same.
    """
    flops = (steps or 0) * settings.batch * settings.accumulate * model.config.context
    seconds = 60 * settings.minutes if settings.minutes else flops * model.flops_per_token(model.config.context) / 2e11
    wanted = settings.compile == "yes" or (settings.compile == "auto" and seconds > 240 and model.compiles)
    if wanted and not machine.can_compile():
        say("no C++ compiler here: running without torch.compile, about a quarter slower")
        return False
    return wanted


def quick_score(
    settings: Train, model: LanguageModel, tokenizer: Tokenizer, shard: Shard
) -> tuple[float, dict[str, float]]:
    """What an evaluation during training keeps low, and its figures: on part of the validation split."""
    if model.causal:
        scores = score(model, shard, stride=model.config.context, limit=QUICK)
        loss = float(scores.nats.sum() / scores.targets.sum())
        bits = scores.bits_per_byte
        return loss, {"validation_loss": loss} | ({"validation_bits_per_byte": bits} if bits is not None else {})
    sampler = Batches(shard, settings.batch, min(model.config.context, len(shard.tokens) - 1), seed=0)
    nats = targets = 0.0
    with torch.inference_mode():
        model.eval()
        for k in range(max(1, min(QUICK, len(shard.tokens)) // (settings.batch * sampler.context))):
            b = mask_tokens(sampler.get(k), mask_token(tokenizer), model.config.vocab, (0, k))
            b = b.to(next(model.parameters()).device)
            nats -= float(model.log_prob(b.tokens, b.targets, segments=b.segments).sum())
            targets += int((b.targets != NO_TARGET).sum())
        model.train()
    return nats / targets, {"validation_masked_loss": nats / targets}


def speak(settings: Train, model: LanguageModel, tokens: int = 40) -> str:
    """A short sample, always from the same prompt and seed."""
    was_training = model.training
    model.eval()
    wanted = Generate("", settings.prompt, tokens=tokens, temperature=0.8, seed=settings.seed)
    text = "".join(continuation(model, settings.prompt, wanted))
    model.train(was_training)
    return settings.prompt + text
