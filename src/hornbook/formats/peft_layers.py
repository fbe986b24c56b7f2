"""Whose adapter is whose: Hugging Face's linear layers, and ours that they stand for.

Where Hugging Face fuses layers that are several here (GPT-2's c_attn), theirs has the A of all below each other and
their B along a diagonal: rank 3 r for three. The other way, each of ours takes the whole A and its own rows of B.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hornbook import models
from hornbook.adapt.lora import LoRA
from hornbook.config import ModelConfig
from hornbook.formats.huggingface import hook, weight_names
from hornbook.layers.model import LanguageModel


class Slot(NamedTuple):
    """A linear layer of theirs."""

    theirs: str
    ours: tuple[str, ...]
    """Our layers in it, the first rows first."""
    heights: tuple[int, ...]
    """Their rows."""
    width: int
    """Columns (inputs) of each."""
    order: Tensor
    """(rows of all,) int64: which of our rows each of theirs is."""
    transposed: bool
    """Theirs is kept as (inputs, outputs)."""

    @property
    def rows(self) -> dict[str, slice]:
        """Where the rows of each of ours are, in our order."""
        ends = pairwise(accumulate(self.heights, initial=0))
        return {name: slice(*span) for name, span in zip(self.ours, ends, strict=True)}


class Factors(NamedTuple):
    """A (rank, columns), B (rows, rank): a matrix becomes W + scale B A."""

    A: Tensor
    B: Tensor
    scale: float


def slots(model: LanguageModel) -> list[Slot]:
    """All linear layers of Hugging Face's; `model` is plain, and may be on 'meta'."""
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    found = []
    for theirs, ours in weight_names(model):
        layers = tuple(name.removesuffix(".weight") for name in ours)
        if not theirs.endswith(".weight") or not all(name in linear for name in layers):
            continue
        heights = tuple(linear[name].out_features for name in layers)
        stored = form(theirs, sum(heights), model.config)
        found.append(Slot(theirs.removesuffix(".weight"), layers, heights, linear[layers[0]].in_features, *stored))
    return found


def form(theirs: str, height: int, config: ModelConfig) -> tuple[Tensor, bool]:
    """How a matrix is stored: the order of its rows, and whether it is transposed."""
    numbered = torch.arange(height)[:, None].expand(-1, 2)  # as if it had two columns
    stored = hook(models.family(config.family), "on_export")(theirs, numbered, config)
    transposed = stored.shape != numbered.shape
    return (stored[0] if transposed else stored[:, 0]), transposed


def fused(slot: Slot, kept: Mapping[str, LoRA]) -> Factors:
    """The adapters of all our layers in one of theirs, as one."""
    parts = {name: kept[name] for name in slot.ours if name in kept}
    first, column = next(iter(parts.values())), 0
    whole = first.B.new_zeros(sum(slot.heights), sum(part.rank for part in parts.values()))
    for name, part in parts.items():
        assert part.scale == first.scale
        whole[slot.rows[name], column : column + part.rank] = part.B.detach()
        column += part.rank
    A = torch.cat([part.A.detach() for part in parts.values()])
    return Factors(A, whole[slot.order.to(whole.device)], first.scale)


def divided(slot: Slot, whole: Factors, parts: Collection[str]) -> dict[str, Factors]:
    """The way back: what `fused` made of `parts`; each takes the whole A where it was not that."""
    B = torch.empty_like(whole.B)
    B[slot.order] = whole.B
    names = [name for name in slot.ours if name in parts]
    rank = len(whole.A) // max(1, len(names))
    blocks = {name: slice(i * rank, (i + 1) * rank) for i, name in enumerate(names)}
    rest = B.clone()
    for name, block in blocks.items():
        rest[slot.rows[name], block] = 0
    if names and not rest.any() and rank * len(names) == len(whole.A):
        return {n: Factors(whole.A[b], B[slot.rows[n], b], whole.scale) for n, b in blocks.items()}
    return {name: Factors(whole.A, B[rows], whole.scale) for name, rows in slot.rows.items()}


def shortened(wanted: Collection[str], every: Iterable[str]) -> list[str]:
    """The shortest ends of names that mean `wanted`, and no other of `every`."""
    names, found = [f".{name}" for name in every], set()
    for name in wanted:
        parts = name.split(".")
        ends = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
        found.add(next(end for end in ends if all(n[1:] in wanted for n in names if n.endswith(f".{end}"))))
    return sorted(found)
