"""Mistakes inside of attention."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from hornbook.layers.attention import Where, materialised, mixing_weights
from hornbook.layers.dropout import dropout as drop
from hornbook.layers.model import LanguageModel
from hornbook.mistakes.comparing import read_so, taught_blind
from hornbook.mistakes.piece import HONEST, MISTAKEN, Figure, Measured, Piece, swapped
from hornbook.mistakes.school import fresh, gpt2, honest, log_probs, stream, teach

Kernel = Callable[[Tensor, Tensor, Tensor, Where, float], Tensor]


def attentions(model: LanguageModel) -> list[Any]:
    """Every module of a model that has an attention kernel."""
    return [module for module in model.modules() if hasattr(module, "kernel")]


def has_attention(model: Any) -> bool:
    return bool(attentions(model))


def has_plain_heads(model: Any) -> bool:
    """Whether each head has keys of its own, and nothing is done with a head by itself before they meet."""
    parts = [m for m in attentions(model) if hasattr(m, "query_norm")]
    alike = all(m.key.out_features == m.query.out_features and m.query_norm is None for m in parts)
    return bool(parts) and alike and model.config.positions != "rotary"


ATTENTION: dict[str, Any] = {"fits": has_attention, "needs": "attention"}


def with_kernel(kernel: Kernel) -> Callable[[LanguageModel], AbstractContextManager[None]]:
    """A plant: every attention computes so."""
    return lambda model: swapped(*((module, "kernel", kernel) for module in attentions(model)))


def sees_all(query: Tensor, key: Tensor, value: Tensor, where: Where, dropout: float) -> Tensor:
    """Attention without a mask."""
    return materialised(query, key, value, dataclasses.replace(where, mask=None, causal=False), dropout)


def attending(weigh: Callable[[Tensor], Tensor], scale: Callable[[int], float] = lambda width: width**-0.5) -> Kernel:
    """Attention whose weights are `weigh` of the masked scores; `scale` of a head's width multiplies these."""

    def kernel(query: Tensor, key: Tensor, value: Tensor, where: Where, dropout: float) -> Tensor:
        scores = query @ key.transpose(-1, -2) * scale(query.shape[-1])
        mask = where.mask
        if mask is None:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
            mask = mask.tril() if where.causal else mask
        weights = weigh(scores.masked_fill(~mask, torch.finfo(scores.dtype).min))
        weights = weights.masked_fill(~mask, 0.0)
        return (drop(weights, dropout, query) if dropout else weights) @ value

    return kernel


def softmax(scores: Tensor) -> Tensor:
    return scores.softmax(-1)


def by_model_width(model: LanguageModel) -> AbstractContextManager[None]:
    """Scores divided by the square root of the model's width, where it should be the head's."""
    width = int(getattr(model.config, "dim", 1))
    return with_kernel(attending(softmax, lambda _: width**-0.5))(model)


def one_head(model: LanguageModel) -> AbstractContextManager[None]:
    """All heads as one."""
    return swapped(*((module, "width", module.query.out_features) for module in attentions(model)))


@torch.no_grad()
def as_it_writes(model: LanguageModel) -> float:
    """Nats of each next byte where the model has read no more than what stands before it."""
    b = stream().get(0)
    tokens, targets = b.tokens[:8, :32], b.targets[:8, :32]
    return -sum(float(log_probs(model, tokens[:, :n], targets[:, :n])[:, -1].sum()) for n in range(8, 33)) / (8 * 25)


@torch.no_grad()
def at_once(model: LanguageModel) -> float:
    """The same bytes, read as whole rows."""
    b = stream().get(0)
    return -float(log_probs(model, b.tokens[:8, :32], b.targets[:8, :32])[:, 7:].mean())


def measure_axis(steps: int) -> Measured:
    model = fresh()
    with WRONG_AXIS(model):
        teach(model, steps)
        rows, writing = at_once(model), as_it_writes(model)
    figures = (
        Figure("loss on whole rows, as in training, nats a byte", rows, MISTAKEN),
        Figure("loss on the same bytes, read one after the other, as in generating", writing),
        Figure("the same without the mistake, either way", as_it_writes(honest(steps)), HONEST),
    )
    return Measured(figures, writing > rows)


@torch.no_grad()
def patterns(plant: Callable[[LanguageModel], AbstractContextManager[Any]] | None) -> int:
    """Attention patterns a layer."""
    model = gpt2()
    with plant(model) if plant else swapped(), mixing_weights(model) as found:
        model(stream().get(0).tokens[:1])
    return found[0].shape[1]


WRONG_AXIS = with_kernel(attending(lambda scores: scores.softmax(-2)))

PIECES = (
    Piece(
        "no-mask",
        "Attention without a causal mask",
        "Each position may look at all others, at those after it too: at the very token that it is to predict.",
        "OPT from scratch, A2: softmax straight on the scores. GPT overview, C1: every word attends to all others.",
        "A loss far below what anyone reaches; text from the model makes no sense, because there is no future to copy.",
        "future leak",
        with_kernel(sees_all),
        taught_blind(with_kernel(sees_all)),
        **ATTENTION,
    ),
    Piece(
        "softmax-axis",
        "Softmax over the wrong axis",
        "The weights are made to add up to 1 over the queries instead of over the keys. What a query gets then "
        "hangs on the queries after it: the future leaks through the divisor, mask or no mask.",
        "In none of the five tutorials (A2 writes dim=3 and C1 dim=-1, both right); in code that is written with "
        "dim=1 or dim=0 for batches that have another shape.",
        "It trains. Rows as a whole look fine; text is written one token at a time, where the weights are others.",
        "attention weights",
        WRONG_AXIS,
        measure_axis,
        **ATTENTION,
    ),
    Piece(
        "no-scale",
        "Scores that are not scaled",
        "Queries times keys without the division by the square root of the head's width K: sums of K terms of size "
        "1 have a deviation of sqrt(K), and softmax makes nearly all weight fall on one position, where it hardly "
        "learns.",
        "GPT overview, C1: softmax of the plain product.",
        "Small models learn all the same, so nobody notices; weights that were learnt with the division are read "
        "wrongly.",
        "hugging face",
        with_kernel(attending(softmax, lambda _: 1.0)),
        read_so(with_kernel(attending(softmax, lambda _: 1.0)), "llama"),
        **ATTENTION,
    ),
    Piece(
        "wrong-scale",
        "Scores divided by the model's width",
        "Divided by the square root of the model's width instead of the head's: with H heads the scores are sqrt(H) "
        "times too small, and attention is spread too evenly.",
        "OPT from scratch, A2: embed_size, with 8 heads sqrt(8) = 2.83 times too small.",
        "Nothing: a model that is taught so makes up for it with larger weights. Published weights read so are worse.",
        "hugging face",
        by_model_width,
        read_so(by_model_width, "llama"),
        **ATTENTION,
    ),
    Piece(
        "unused-heads",
        "A number of heads that is never used",
        "The argument is taken and stored, and attention has a single head all the same.",
        "GPT overview, C2: EncoderLayer is given num_heads and builds its SelfAttention without it.",
        "Nothing: parameters, shapes and speed are those of many heads. There is one pattern a layer to mix by.",
        "heads",
        one_head,
        read_so(
            one_head,
            "gpt2",
            lambda: Figure("attention patterns a layer", patterns(one_head), MISTAKEN),
            lambda: Figure("patterns a layer, one a head", patterns(None), HONEST),
        ),
        gpt2,
        has_plain_heads,
        "heads that have keys of their own, and positions that are not turned into them,",
    ),
)
