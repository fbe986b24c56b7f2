"""One neural run: the loop with its batches, its evaluations and its folder, from fresh or from where it stopped."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import torch

from hornbook import machine
from hornbook.config import Train
from hornbook.data.batches import NO_TARGET, Batches
from hornbook.data.masking import mask_token, mask_tokens
from hornbook.data.shards import Shard
from hornbook.errors import UserError
from hornbook.evaluation.pseudo import pseudo_perplexity
from hornbook.evaluation.score import score
from hornbook.layers.model import LanguageModel
from hornbook.progress import Bar, duration, say
from hornbook.run import Run
from hornbook.training.loop import State, Watch, fit
from hornbook.training.objective import Objective
from hornbook.training.optimizers import Optimizers
from hornbook.training.prepare import choose_kernels, make_batches, precision
from hornbook.training.sample import speak

QUICK = 20_000
"""Validation tokens that an evaluation during training looks at."""


class Session:
    """Holds what the loop's callbacks share. `settings` are resolved; `model` has its tokeniser."""

    def __init__(self, settings: Train, model: LanguageModel, shards: dict[str, Shard], run: Run) -> None:
        assert settings.lr is not None
        assert settings.optimizer is not None
        self.began = time.monotonic()
        self.settings, self.model, self.validation, self.run = settings, model, shards["validation"], run
        self.device = torch.device(settings.device or "cpu")
        machine.keep_freed_memory()
        model.to(self.device)
        choose_kernels(model, self.device, model.config.context)
        sampler, self.batch = make_batches(settings, model, shards["train"])
        self.steps = settings.steps
        if self.steps is None and settings.epochs:
            self.steps = math.ceil(sampler.per_epoch * settings.epochs / settings.accumulate)
        self.optimizers = Optimizers(settings.optimizer, model, settings.lr, settings.weight_decay, settings.beta2)
        self.autocast = precision(settings, self.device)
        self.state = State()

    def learn(self, bar: Bar) -> dict[str, Any]:
        """Train to the end, or on to it; returns the summary of the best checkpoint. Raises as `loop.fit` does."""
        self.bar = bar
        self.resume()
        objective: torch.nn.Module = Objective(self.model).train()
        if self.pays_to_compile():
            objective = torch.compile(objective)  # type: ignore[assignment]
        self.state.seconds += time.monotonic() - self.began
        watch = Watch(self.after_step, self.evaluate, self.save)
        fit(objective, self.batch, self.optimizers, self.settings, self.steps, self.state, watch, self.autocast)
        self.run.restore_best(self.model)
        return self.summary()

    def resume(self) -> None:
        """Take weights, optimiser, random state and place from the last checkpoint, where there is one."""
        saved = self.run.restore(self.model)
        if saved is None:
            return self.run.cut_log(lambda line: False)  # of a run that ended before its first checkpoint
        tensors, facts = saved
        self.state = State(**facts)
        prefix = "optimizer."
        self.optimizers.restore({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        torch.set_rng_state(tensors["rng"])
        if "rng_cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng_cuda"], self.device)
        self.run.cut_log(lambda line: line["step"] <= self.state.step)
        say(f"carrying on at step {self.state.step}")

    def after_step(self, state: State, loss: float, progress: float) -> None:
        speed = state.tokens / max(state.seconds, 1e-9)
        self.bar.show(progress, 1, f"step {state.step}  loss {loss:.3f}  {speed:,.0f} tokens/s")
        self.run.log(step=state.step, loss=loss, seconds=state.seconds, tokens=state.tokens)

    def evaluate(self, state: State) -> float:
        """Measure on part of the validation split, and let the model speak; returns the loss to keep low."""
        with self.autocast():
            figures = self.causal_figures() if self.model.causal else self.masked_figures()
        value = next(iter(figures.values()))
        if not math.isfinite(value):
            raise UserError(
                f"the validation loss became {value} at step {state.step}. Try a lower --lr or more --warmup"
            )
        sample = speak(self.model, self.settings) if self.model.causal else None
        self.run.log(step=state.step, seconds=state.seconds, sample=sample, **figures)
        told = "  ".join(f"{name.replace('_', ' ')} {number:.3f}" for name, number in figures.items())
        say(f"step {state.step}  {told}" + (f"  {sample!r}" if sample else ""))
        return value

    def causal_figures(self) -> dict[str, float]:
        scores = score(self.model, self.validation, stride=self.model.config.context, limit=QUICK)
        figures = {"validation_loss": float(scores.nats.sum() / scores.targets.sum())}
        if (bits := scores.bits_per_byte) is not None:
            figures["validation_bits_per_byte"] = bits
        return figures

    def masked_figures(self) -> dict[str, float]:
        """An encoder's loss on hidden tokens, always the same ones."""
        model, context = self.model, min(self.model.config.context, len(self.validation.tokens) - 1)
        sampler = Batches(self.validation, self.settings.batch, context, seed=0)
        nats = targets = 0.0
        model.eval()
        with torch.inference_mode():
            for k in range(max(1, min(QUICK, len(self.validation.tokens)) // (self.settings.batch * context))):
                b = mask_tokens(sampler.get(k), mask_token(model.tokenizer), model.config.vocab, (0, k)).to(self.device)
                nats -= float(model.log_prob(b.tokens, b.targets, segments=b.segments).sum())
                targets += int((b.targets != NO_TARGET).sum())
        model.train()
        return {"validation_masked_loss": nats / max(targets, 1)}

    def save(self, state: State, best: bool) -> None:
        tensors = {f"optimizer.{name}": tensor for name, tensor in self.optimizers.tensors().items()}
        tensors["rng"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng_cuda"] = torch.cuda.get_rng_state(self.device)
        self.run.save(state.step, self.model, self.model.tokenizer, tensors, dataclasses.asdict(state), best)

    def pays_to_compile(self) -> bool:
        """Whether to compile: it costs half a minute or more, so only a run of several minutes gains by it.

        The length of a run in steps is judged by its operations, at 200 GFLOP/s, so that the answer is always the same.
        """
        s, context = self.settings, self.model.config.context
        flops = (self.steps or 0) * s.batch * s.accumulate * context * self.model.flops_per_token(context)
        seconds = 60 * s.minutes if s.minutes else flops / 2e11
        wanted = s.compile == "yes" or (s.compile == "auto" and seconds > 240 and self.model.gains_by_compiling)
        if wanted and not machine.can_compile():
            say("no C++ compiler here: running without torch.compile, about a quarter slower")
            return False
        return wanted

    def summary(self) -> dict[str, Any]:
        """The run's totals, and the score of the model as it is now on the whole validation split."""
        state, s, model = self.state, self.settings, self.model
        result: dict[str, Any] = {
            "steps": state.step,
            "seconds": state.seconds,
            "tokens": state.tokens,
            "mean_loss": state.nats / max(state.targets, 1),
            "tokens_per_second": state.tokens / state.seconds,
            "samples_per_second": state.step * s.accumulate * s.batch / state.seconds,
            "steps_per_second": state.step / state.seconds,
            "flops": state.tokens * model.flops_per_token(model.config.context),
        }
        say(
            f"{state.step} steps in {duration(state.seconds)}: mean loss {result['mean_loss']:.3f}, "
            f"{result['samples_per_second']:.1f} samples/s, {result['steps_per_second']:.2f} steps/s, "
            f"{result['flops']:.3g} FLOPs"
        )
        if not model.causal:
            found = pseudo_perplexity(model, self.validation, mask_token(model.tokenizer))
            return result | {"sample": None, "pseudo_perplexity": found}
        whole = score(model, self.validation, progress=lambda done, total: self.bar.show(done, total, "evaluating"))
        return result | {"sample": speak(model, s), "validation": whole.summary()}
