"""The last steps, from a hidden state to what is predicted, and the steps of models without blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from hornbook.errors import visible
from hornbook.inspection.arithmetic import score, weigh
from hornbook.inspection.recurrence import CANDIDATES, FORMULAS, GATE_FORMULAS, GATES, gates, run_layer
from hornbook.inspection.steps import Recipe, Values, norm_formula, product
from hornbook.layers.attention import Where

GIVEN = Recipe("tokens", "ids of the text's tokens", "as the tokeniser cuts it")


def end_steps(model: Any, final: str) -> Iterator[Recipe]:
    """To logits of tokens or of classes; nothing for an encoder that came without a head."""
    if getattr(model, "project_out", None) is not None:
        told, before = "hidden state in the embedding's width", final
        yield Recipe("head.projected", told, product(model.project_out, final), lambda v: model.project_out(v[before]))
        final = "head.projected"
    if getattr(model, "transform", None) is not None:
        yield from transform_steps(model, final)
        final = "head.norm"
    if model.class_head is not None:
        labels = ", ".join(map(visible, model.config.labels))
        yield Recipe("classes", f"logits of {labels}", "the class head", lambda v: model.class_head(v[final]))
    elif getattr(model.config, "masked_head", True):
        bias = " + b" if model.readout_bias is not None else ""
        table = "E, the token embedding," if model.output is None else "W"
        formula = f"{table} times {final}{bias}"
        yield Recipe("logits", "a score for every token of the vocabulary", formula, lambda v: model.unembed(v[final]))


def transform_steps(model: Any, final: str) -> Iterator[Recipe]:
    """BERT's head: a layer, exact GELU, a norm."""
    dense, norm = model.transform, model.transform_norm
    yield Recipe("head.dense", "the head's own layer", product(dense, final), lambda v: dense(v[final]))
    yield Recipe("head.activation", "activation, gelu", "x Phi(x)", lambda v: F.gelu(v["head.dense"]))
    formula = norm_formula(norm, "head.activation")
    yield Recipe("head.norm", "the head's norm", formula, lambda v: norm(v["head.activation"]))


def counted_steps(model: Any) -> Iterator[Recipe]:
    """An n-gram's: the tokens that it looks at, and what its tables say after them."""
    yield GIVEN
    told = "the last tokens, the latest last; -1 where a document begins before them"
    yield Recipe(
        "contexts",
        told,
        f"the last {max(1, model.config.order - 1)} of a document",
        lambda v: model.hidden(v["tokens"]),
    )
    told = "log-probability of every token; below, how they come about"
    yield Recipe("logits", told, "tables of n-grams, longest first", lambda v: model.head(v["contexts"]))


def recurrent_steps(model: Any) -> Iterator[Recipe]:
    """An RNN's: states layer by layer with the gates behind them, attention over them where there is one, the head."""
    yield GIVEN
    yield Recipe(
        "tokens.embedding",
        "token embedding: a row of the table for each id",
        "E[token]",
        lambda v: model.embedding(v["tokens"]),
    )
    x, kind = "tokens.embedding", type(model.recurrent)
    for layer in range(model.recurrent.num_layers):
        yield from layer_steps(model.recurrent, layer, x, kind)
        x = f"layers.{layer}.state"
    if hasattr(model, "kernel"):
        yield from looking_back(model, x)
        x = "hidden"
    yield from end_steps(model, x)


def layer_steps(recurrent: Any, layer: int, x: str, kind: type[nn.Module]) -> Iterator[Recipe]:
    state = f"layers.{layer}.state"
    told = "hidden state after each token"
    yield Recipe(state, told, f"{FORMULAS[kind]}, x = {x}", lambda v: run_layer(recurrent, layer, v[x]))
    for gate in GATES[kind]:

        def make(v: Values, gate: str = gate) -> Tensor:
            return gates(recurrent, layer, v[x], v[state])[gate]

        words = (
            "what the layer remembers, beside its state" if gate == "cell" else f"{gate.replace('_', ' ')} behind it"
        )
        yield Recipe(f"layers.{layer}.{gate}", words, GATE_FORMULAS.get(gate) or CANDIDATES[kind], make)


def looking_back(model: Any, states: str) -> Iterator[Recipe]:
    """Attention of each state to all before it (Luong et al. 2015)."""
    yield Recipe(
        "attention.query", "what each state asks for", f"W {states}", lambda v: model.query(v[states])[:, None]
    )
    yield Recipe(
        "attention.scores",
        "how well it fits each state, before the mask",
        "q h / sqrt(D)",
        lambda v: score(v["attention.query"], v[states][:, None]),
    )
    yield Recipe(
        "attention.pattern",
        "weights: shares of 1 among the states so far",
        "softmax, 0 for later states",
        lambda v: weigh(v["attention.scores"], Where(None, causal=True)),
    )
    told = "states, mixed by the weights"
    yield Recipe(
        "attention.mixed", told, "sum of weight x state", lambda v: v["attention.pattern"] @ v[states][:, None]
    )
    told = "what is found, in the state's terms"
    yield Recipe("attention.output", told, "C mix", lambda v: model.combine(v["attention.mixed"][:, 0]))
    told = "the state, and what it found"
    yield Recipe("hidden", told, f"{states} + attention.output", lambda v: v[states] + v["attention.output"])
