"""The walk: every step of a model over a text, in order, each made again from those before it.

Attention is written out for it, so that its steps are all there is: made anew one after the other they give the model's
logits bit for bit, and those of the fused kernel but for rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from hornbook.checkpoint import load
from hornbook.config import Inspect
from hornbook.errors import UserError
from hornbook.generation.stream import prompt_ids
from hornbook.inspection import backoff
from hornbook.inspection.activations import recording, through
from hornbook.inspection.arithmetic import using_kernel
from hornbook.inspection.end_steps import counted_steps, recurrent_steps
from hornbook.inspection.places import names
from hornbook.inspection.steps import Recipe, Step
from hornbook.inspection.transformer_steps import transformer_steps
from hornbook.layers import class_head
from hornbook.layers.attention import materialised
from hornbook.layers.model import LanguageModel
from hornbook.layers.transformer import Transformer

ENDS = ("logits", "classes")


class Likely(NamedTuple):
    """What a model holds likely at one place."""

    place: int
    """Of the token that it has read last, from 0."""
    best: tuple[tuple[str, float], ...]
    """Pieces or classes with their probabilities, the likeliest first."""


@dataclass(frozen=True)
class Walk:
    """A pass over one row, step by step. `print` shows it; in a notebook it is a page."""

    model: LanguageModel = field(repr=False)
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    """One an id; the ids themselves where there is no tokeniser."""
    steps: tuple[Step, ...] = field(repr=False)
    counted: backoff.Counted | None = field(default=None, repr=False)
    """What a counted model was fitted on, where that is at hand."""

    def __getitem__(self, name: str) -> Step:
        return self.by_name[name]

    @cached_property
    def by_name(self) -> dict[str, Step]:
        return {step.name: step for step in self.steps}

    @torch.no_grad()
    def recomputed(self) -> dict[str, Tensor]:
        """All steps made anew, each from those made anew before it, by name."""
        values: dict[str, Tensor] = {}
        for step in self.steps:
            values[step.name] = step.recompute(values)
        return values

    @property
    def outcome(self) -> Tensor | None:
        """(1,T,V) logits, or (1,T,C) of classes; None for an encoder without a head."""
        return self.steps[-1].value if self.steps[-1].name in ENDS else None

    def likeliest(self, top: int = 5) -> list[Likely]:
        """What comes next; for an encoder what stands at each place, for a model of classes which."""
        if self.outcome is None:
            return []
        shares, model = self.outcome[0].float().softmax(-1), self.model
        places = [len(self.ids) - 1] if model.causal else list(range(len(self.ids)))
        if model.class_head is not None:
            segments = torch.ones_like(self.steps[0].value)
            places = class_head.judged_places(self.steps[0].value, segments, model.causal).tolist()
        return [Likely(place, tuple(self.best(shares[place], top))) for place in places]

    def best(self, shares: Tensor, top: int) -> list[tuple[str, float]]:
        found = shares.topk(min(top, len(shares)))
        labels = self.model.config.labels if self.model.class_head is not None else ()
        named = [labels[token] if labels else spell(self.model, token) for token in found.indices.tolist()]
        return list(zip(named, found.values.tolist(), strict=True))

    @cached_property
    def ways(self) -> list[backoff.Prediction]:
        """Of a counted model: how each probability comes about."""
        if not self.model.counted or self.outcome is None:
            return []
        likeliest = int(self.outcome[0, -1].argmax())
        spelt = partial(spell, self.model)
        return backoff.predictions(self.model, self.ids, likeliest, spelt, self.counted)

    def __str__(self) -> str:
        from hornbook.inspection.grid import plain
        from hornbook.inspection.walk_page import shown

        return plain(shown(self))

    def _repr_html_(self) -> str:
        from hornbook.inspection.grid import html
        from hornbook.inspection.walk_page import shown

        return html(shown(self))


def walk(model: LanguageModel, text: str | Sequence[int] | Tensor, segments: Tensor | None = None) -> Walk:
    """The steps of a pass over a text, or over token ids (T,); dropout is off.

    A text is read as a prompt of this model is: opened as its training documents were, framed for an encoder; for an
    encoder-decoder it is a source, from which a first token is to be written. `segments` (T,) beside ids: only for
    Transformers. UserError for an empty text.
    """
    if isinstance(text, str):
        ids, segments = read(model, text)
    else:
        ids = list(map(int, text))
    if not ids:
        raise UserError("the walk needs a token at least: the text is empty")
    tokens = torch.tensor([ids], device=model.device)
    row = None if segments is None else segments.reshape(1, -1).to(model.device)
    return Walk(model, tuple(ids), tuple(spell(model, i) for i in ids), tuple(walked(model, tokens, row)))


def walk_through(settings: Inspect) -> Walk:
    """The walk that `hornbook inspect RUN TEXT` shows. UserError as `load` raises."""
    model = load(settings.model, text=True, bits=settings.bits)
    assert settings.text is not None
    return dataclasses.replace(walk(model, settings.text), counted=backoff.counted_text(settings.model, model))


def read(model: LanguageModel, text: str) -> tuple[list[int], Tensor | None]:
    """Ids (T,) of a text as this model reads it, and which of them are a source."""
    if not model.causal:
        return model.tokenizer.encode_framed(text), None
    ids = prompt_ids(model, text)
    if not model.reads_source:
        return ids, None
    source = len(model.tokenizer.encode(text))
    if len(ids) == source:
        raise UserError("this model writes from a source and its config has no bos that would open what it writes")
    return ids, torch.tensor([-1] * source + [1] * (len(ids) - source))


def spell(model: LanguageModel, token: int) -> str:
    return model.tokenizer.piece(token) if hasattr(model, "tokenizer") else str(token)


@torch.no_grad()
def walked(model: LanguageModel, tokens: Tensor, segments: Tensor | None) -> list[Step]:
    """The steps of one pass with their values."""
    training = model.training
    try:
        model.eval()
        known = names(model)
        with using_kernel(model, materialised), recording(model) as found:
            through(model, tokens, segments, known[-1] in ENDS)
    finally:
        model.train(training)
    found |= {"tokens": tokens} | ({} if segments is None else {"segments": segments})
    steps = []
    for name, told, formula, make in recipes(model, segments):
        if name not in found:
            assert make is not None
            found[name] = make(found)
        steps.append(Step(name, told, formula, found[name], make))
    return steps


def recipes(model: LanguageModel, segments: Tensor | None) -> list[Recipe]:
    """The steps of a model, in order. UserError for one that has none to show."""
    if isinstance(model, Transformer):
        sourced = model.reads_source and segments is not None and bool((segments < 0).any())
        return list(transformer_steps(model, segments is not None, sourced))
    if segments is not None:
        raise UserError("segments are for Transformers: walk through one document at a time")
    if model.counted:
        return list(counted_steps(model))
    if hasattr(model, "recurrent"):
        return list(recurrent_steps(model))
    raise UserError(f"no walk is known for a model of the family {model.config.family}")
