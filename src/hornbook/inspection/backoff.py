"""How a counted model comes to a probability: the contexts that it tries, and what each leaves to the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hornbook.data.shards import VERSION, read_shard
from hornbook.errors import UserError
from hornbook.small_files import read_object
from hornbook.text.home import home

MOST = 200_000_000
"""Tokens of a text that are searched for counts."""


class Tried(NamedTuple):
    """One context on the way, the longest first."""

    context: tuple[str, ...]
    """Its tokens in pieces; none for no context at all."""
    followers: int
    """How many different tokens were counted after it; with no context, how many there are."""
    found: bool
    """Whether the predicted token was among them: then `factor` is its probability, else what is left to others."""
    factor: float
    times: int | None = None
    """How often anything followed the context in the text that was counted; None where that is not at hand."""
    hits: int | None = None
    """How often it was the predicted token."""


class Prediction(NamedTuple):
    """One predicted token; the factors of its way multiply out to the model's probability."""

    place: int
    """Number of tokens before it."""
    token: int
    piece: str
    way: tuple[Tried, ...]

    @property
    def probability(self) -> float:
        return math.prod(tried.factor for tried in self.way)


class Counted:
    """The text that a model was counted from, to be counted again."""

    def __init__(self, tokens: NDArray[Any], model: Any) -> None:
        """tokens (N,), any integer type: what `fit` was given."""
        self.tokens, self.separators, self.start = tokens, model.separators, model.start

    @cached_property
    def opened(self) -> NDArray[Any]:
        """With something before the first token that opens its document."""
        if np.isin(self.tokens[:1], self.separators).any():
            return self.tokens
        return np.concatenate([[self.start], self.tokens])

    def places(self, text: NDArray[Any], token: int) -> NDArray[np.intp]:
        return np.flatnonzero(self.alike(text, token))

    def alike(self, tokens: NDArray[Any], token: int) -> NDArray[np.bool_]:
        if token == self.start:
            return np.isin(tokens, [self.start, *self.separators])
        return tokens == token

    def after(self, context: Sequence[int], token: int) -> tuple[int, int]:
        """How often anything follows a context, and how often this token does."""
        whole = self.opened
        if not context:
            return len(whole) - 1, int((whole[1:] == token).sum())
        hits = self.places(whole[: len(whole) - len(context)], context[0])
        for offset, word in enumerate(context[1:], start=1):
            hits = hits[self.alike(whole[hits + offset], word)]
        return len(hits), int((whole[hits + len(context)] == token).sum())


def counted_text(folder: str, model: Any) -> Counted | None:
    """What a run was counted from, where its tokens still lie in this machine's shards; nothing is prepared for it."""
    settings = Path(folder).expanduser() / "train.json"
    if not model.counted or not settings.is_file():
        return None
    said = read_object(settings)
    text, tokenizer = said.get("text") or "", model.tokenizer.hash
    path = home() / "shards" / f"{text[:16]}-{tokenizer[:16]}.safetensors"
    if not text or not path.is_file():
        return None
    try:
        tokens = read_shard(path, {"version": VERSION, "tokenizer": tokenizer, "text": text}).tokens
    except UserError:
        return None
    return Counted(tokens, model) if len(tokens) <= MOST else None


def predictions(
    model: Any, ids: Sequence[int], likeliest: int, spell: Callable[[int], str], counted: Counted | None = None
) -> list[Prediction]:
    """Of every token of a text after its first, and of the `likeliest` after its end. `spell` gives their pieces."""
    goals = [*ids[1:], likeliest]
    return [predicted(model, ids[: at + 1], goal, spell, counted) for at, goal in enumerate(goals)]


def predicted(
    model: Any, before: Sequence[int], goal: int, spell: Callable[[int], str], counted: Counted | None
) -> Prediction:
    way = []
    for step in model.backoff_path(before, goal):
        words = tuple("start" if token == model.start else spell(token) for token in step.context)
        seen = (None, None) if counted is None else counted.after(step.context, goal)
        way.append(Tried(words, followers(model, step.context), step.found, math.exp(step.nats), *seen))
    return Prediction(len(before), goal, spell(goal), tuple(way))


def followers(model: Any, context: Sequence[int]) -> int:
    """How many different tokens were counted after some tokens."""
    if not context:
        return model.config.vocab
    first, *rest = (torch.tensor([token], device=model.device) for token in context)
    node = first
    for length, word in enumerate(rest, start=2):
        node = model.find(length, node, word)
    return int(model.continuations(len(context), node)[1])
