"""What a session lets a model learn, and how it looks at that: text here, tasks in `finetune.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from hornbook.config import Train
from hornbook.data.batches import NO_TARGET, Batch, Batches
from hornbook.data.loader import Foresight
from hornbook.data.masking import mask_token, mask_tokens
from hornbook.data.mixing import Mixed
from hornbook.data.shards import Shard
from hornbook.evaluation.mixture import mean_summary
from hornbook.evaluation.pseudo import pseudo_perplexity
from hornbook.evaluation.score import score
from hornbook.evaluation.watched import task_figures
from hornbook.layers.model import LanguageModel
from hornbook.parallel.processes import Processes
from hornbook.training.objective import Objective
from hornbook.training.prepare import make_batches, row_length
from hornbook.training.sample import speak

Show = Callable[[int, int], None]
"""(done, in all), for a progress bar."""


class Looked(NamedTuple):
    """What an evaluation found."""

    value: float
    """To be kept low: the checkpoint of the lowest is the best."""
    figures: dict[str, float]
    sample: str | None = None
    loss: float = 0.0
    """Of evaluations with equal values, that of the lowest is the best."""


class Work(Protocol):
    """Batches, an objective, and measures of success."""

    objective: nn.Module
    context: int
    """Tokens in a row."""
    per_epoch: float
    """Batches."""
    read_by_batch: float
    """Share of its text that a batch is; of several the mean by their shares."""

    def batch(self, k: int) -> Batch:
        """Batch number k, a pure function of it."""

    def evaluate(self, show: Show) -> Looked:
        """Measure the model, which is in evaluation mode, on part of what it does not learn from."""

    def summary(self, show: Show) -> dict[str, Any]:
        """Measure the best model on all of that."""


class TextWork:
    """The next token of a text, or for an encoder its hidden ones."""

    def __init__(
        self,
        settings: Train,
        model: LanguageModel,
        shards: dict[str, Shard] | dict[str, Mixed],
        processes: Processes | None = None,
    ) -> None:
        """`processes` share the scoring, where there are several."""
        held = shards["validation"]
        self.settings, self.model = settings, model
        self.score = partial(score, model, processes=processes)
        self.names = held.names if isinstance(held, Mixed) else ("",)
        self.held: Sequence[Shard] = held.shards if isinstance(held, Mixed) else (held,)
        self.weights = [float(weight) for weight in held.weights] if isinstance(held, Mixed) else [1.0]
        self.objective: nn.Module = Objective(model)
        self.context = row_length(settings, model.config)
        sampler, self.get = make_batches(settings, model, shards["train"])
        self.per_epoch, self.read_by_batch = sampler.per_epoch, sampler.read_by_batch
        self.foresight: Foresight | None = sampler if sampler.far else None

    def batch(self, k: int) -> Batch:
        return self.get(k)

    def evaluate(self, show: Show) -> Looked:
        limit = math.ceil(self.settings.eval_tokens / len(self.held))
        if not self.model.causal:
            figures = self.mean({"validation_masked_loss": [self.masked_loss(shard, limit) for shard in self.held]})
            return Looked(figures["validation_masked_loss"], figures)
        found = [self.score(shard, self.context, self.context, limit=limit) for shard in self.held]
        losses = {"validation_loss": [float(scores.nats.sum() / scores.targets.sum()) for scores in found]}
        bits = [scores.bits_per_byte for scores in found if scores.bits_per_byte is not None]
        figures = self.mean(losses | ({"validation_bits_per_byte": bits} if len(bits) == len(found) else {}))
        figures |= task_figures(self.model, self.settings.tasks)
        return Looked(figures["validation_loss"], figures, speak(self.model, self.settings))

    def mean(self, figures: dict[str, list[float]]) -> dict[str, float]:
        """Each figure's mean over the corpora by their shares, and, of several, the last figure of each."""
        means = {k: sum(w * x for w, x in zip(self.weights, values, strict=True)) for k, values in figures.items()}
        if len(self.held) > 1:
            last = list(figures)[-1]
            means |= {f"{last}_{name}": value for name, value in zip(self.names, figures[last], strict=True)}
        return means

    def masked_loss(self, held: Shard, limit: int) -> float:
        """An encoder's loss on hidden tokens, always the same ones."""
        model, context = self.model, min(self.context, len(held.tokens) - 1)
        assert self.settings.batch != "auto"
        sampler = Batches(held, self.settings.batch, context, seed=0)
        nats = targets = 0.0
        with torch.inference_mode():
            tokens = min(limit, len(held.tokens))
            for k in range(max(1, tokens // (self.settings.batch * context))):
                b = mask_tokens(sampler.get(k), mask_token(model.tokenizer), model.config.vocab, (0, k))
                b = b.to(model.device)
                nats -= float(model.log_prob(b.tokens, b.targets, segments=b.segments).sum())
                targets += int((b.targets != NO_TARGET).sum())
        return nats / max(targets, 1)

    def summary(self, show: Show) -> dict[str, Any]:
        if not self.model.causal:
            mask = mask_token(self.model.tokenizer)
            found = [pseudo_perplexity(self.model, shard, mask) for shard in self.held]
            mean = sum(weight * math.log(one) for weight, one in zip(self.weights, found, strict=True))
            return {"sample": None, "pseudo_perplexity": math.exp(mean)}
        each = [self.score(shard, self.context, progress=show).summary() for shard in self.held]
        sample = speak(self.model, self.settings)
        if len(each) == 1:
            return {"sample": sample, "validation": each[0]}
        apart = dict(zip(self.names, each, strict=True))
        return {"sample": sample, "validation": mean_summary(each, self.weights), "validations": apart}
