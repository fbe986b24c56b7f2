"""A model's state dict under the reference's names, beside ours."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hornbook import models
from hornbook.config import ModelConfig
from hornbook.formats.filling import build_empty
from hornbook.formats.huggingface import export_weights, weight_names
from hornbook.inspection.configs import stand_in
from hornbook.layers.model import LanguageModel

NUMBER = re.compile(r"(?<=\.)\d+(?=\.)|(?<=_l)\d+$")
"""The number of a layer in a name."""

TINY = {
    "vocab": 11,
    "context": 13,
    "dim": 16,
    "embedding_dim": 10,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 6,
    "mlp": 20,
    "entries": 15,
}
"""Sizes small enough to fill with numbers."""


@dataclass(frozen=True)
class Name:
    """A tensor of a Hugging Face folder, and where it is here. Layers that are equal share one: `h.{i}.ln_1.weight`."""

    theirs: str
    their_shape: tuple[int, ...]
    ours: tuple[str, ...]
    """Several where theirs is fused: put together along the first axis."""
    our_shapes: tuple[tuple[int, ...], ...]
    marks: tuple[str, ...] = ()
    """fused; transposed, reordered or changed in value; tied (then it is not stored)."""
    layers: str = ""
    """The values of i: `0-11`."""


def names_of(model: LanguageModel) -> list[Name]:
    """All tensors of a model in the order of its family's table."""
    state, stored, forms = model.state_dict(), export_weights(model), stored_forms(model.config)
    rows: dict[Name, list[int]] = {}
    for theirs, ours in weight_names(model):
        numbers = NUMBER.findall(theirs)
        row = Name(
            theirs=NUMBER.sub("{i}", theirs),
            their_shape=tuple(stored[theirs].shape),
            ours=tuple(NUMBER.sub("{i}", name) for name in ours),
            our_shapes=tuple(tuple(state[name].shape) for name in ours),
            marks=(("fused",) if len(ours) > 1 else ()) + forms[theirs],
        )
        rows.setdefault(row, []).extend(int(number) for number in numbers[:1])
    folded = [Name(**vars(row) | {"layers": spans(layers)}) for row, layers in rows.items()]
    return [*folded, *tied_names(model)]


def tied_names(model: LanguageModel) -> Iterator[Name]:
    """The head that is the token embedding: in the reference's state dict, and not in its files."""
    shape = (tuple(model.get_parameter("embedding.weight").shape),) if model.tied else ()
    for theirs, ours in models.family(model.config.family).WEIGHTS.items():
        if shape and ours == "output.weight" and ours not in model.state_dict():
            yield Name(theirs, shape[0], ("embedding.weight",), shape, ("tied",))


def stored_forms(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Their names -> what their form differs by, found by writing out a tiny model of the family."""
    model = build_empty(stand_in(config, TINY)).to_empty(device="cpu")
    start = itertools.count(0, 10_000)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            first = next(start) % 1_000_000  # float32 holds such numbers exactly
            tensor.copy_(torch.arange(first, first + tensor.numel()).view_as(tensor))
    state, stored = model.state_dict(), export_weights(model)
    pairs = ((theirs, torch.cat([state[name] for name in ours])) for theirs, ours in weight_names(model))
    return {theirs: form(ours, stored[theirs]) for theirs, ours in pairs}


def form(ours: Tensor, theirs: Tensor) -> tuple[str, ...]:
    """How a stored tensor differs from ours put together; nothing where it does not."""
    if torch.equal(ours, theirs):
        return ()
    if ours.ndim == 2 and torch.equal(ours.T, theirs):
        return ("transposed",)
    same = ours.numel() == theirs.numel() and torch.equal(ours.flatten().sort()[0], theirs.flatten().sort()[0])
    return ("reordered",) if same else ("changed",)


def spans(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> '0-2, 5'."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
