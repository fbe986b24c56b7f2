"""Memory of one device in training, as the engine here trains: float32 weights, gradients and optimiser, products in
bfloat16 by autocast, a head whose logits exist for a chunk of positions at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hornbook.config import ModelConfig
from hornbook.formats.filling import build_empty
from hornbook.layers.cross_entropy import CHUNK
from hornbook.layers.model import LanguageModel
from hornbook.planning.activations import activations
from hornbook.planning.layout import Layout, share_of
from hornbook.training.adafactor import Adafactor
from hornbook.training.muon import Muon, same_shapes
from hornbook.training.optimizers import Optimizers

MOST = 4096
"""Rows of a batch above which no larger one is looked for."""


ALONE = Layout()


@dataclass(frozen=True)
class Case:
    """What decides memory, the batch aside."""

    config: ModelConfig
    layout: Layout = ALONE
    context: int = 1024
    precision: str = "bfloat16"
    optimizer: str = "adamw"
    recompute: bool = False
    accumulating: bool = False
    """Whether gradients of one batch lie there while the next is computed."""
    attention: str = "fused"
    base: int = 0
    """Bytes that the process has before there is a model."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. Not all of it is there at the same moment: `peak` is the most that is."""

    base: int
    weights: int
    gradients: int
    optimizer: int
    copies: int
    """Weights for products, in bfloat16: all, or where sharded those of two blocks; then embedding and head too, in
    float32."""
    activations: int
    logits: int
    """The loss: logits of a chunk with their gradients, and the gradient of the head's matrix."""
    cache: int
    """Keys and values of one row of the context in bfloat16: for generating, and not in the peak."""
    peak: int
    moment: str
    """When that is: 'loss', 'backward' or 'step'."""


def state_bytes(optimizer: torch.optim.Optimizer, p: nn.Parameter) -> int:
    """What an optimiser keeps for a parameter."""
    if isinstance(optimizer, Muon):
        return 4 * p.numel()
    if isinstance(optimizer, Adafactor):
        return 4 + 4 * (p.numel() // p.shape[-1] + p.numel() // p.shape[-2] if p.ndim >= 2 else p.numel())
    return 4 + 8 * p.numel()  # AdamW: two moments, and how many steps


def working_bytes(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> int:
    """What an optimiser's step takes for a moment."""
    sizes = [p.numel() for p in parameters]
    if isinstance(optimizer, Muon):  # looked-ahead momentum in float32 and bfloat16
        return 6 * sum(sizes)
    return 12 * max(sizes, default=0) if isinstance(optimizer, Adafactor) else 0


def whole_bytes(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> int:
    """What it takes beside that of matrices in full, however they are sharded."""
    if not isinstance(optimizer, Muon):
        return 0
    groups = same_shapes(list(parameters))
    most = max((sum(parameters[i].numel() for i in group) for group in groups), default=0)
    return 10 * most  # bfloat16: gathered, stacked, and of the iteration three


@functools.lru_cache(maxsize=64)
def sizes_of(config: ModelConfig, optimizer: str, context: int) -> dict[str, int]:
    """Bytes of weights, optimiser state, its step, and the cache of a row of `context` tokens; V E of the head; the
    largest block's numbers."""
    model = build_empty(config)
    groups = [
        (o, [p for g in o.param_groups for p in g["params"]]) for o in Optimizers(optimizer, model, 0.0, 0.0, 0.9).all
    ]
    head = model.readout.weight
    return {
        "weights": 4 * model.parameter_count(),
        "optimizer": sum(state_bytes(o, p) for o, ps in groups for p in ps),
        "step": max(working_bytes(o, ps) for o, ps in groups),
        "whole": max(whole_bytes(o, ps) for o, ps in groups),
        "head": head.numel(),
        "vocab": head.shape[0],
        "width": head.shape[1],
        "block": largest_block(model),
        "matrix": 4 * max(p.numel() for p in model.parameters()),
        "cache": model.make_cache(1, context).bytes // 2,  # float32 on 'meta'
        "tied": int(model.tied),
    }


def largest_block(model: LanguageModel) -> int:
    """Numbers in the largest block, which sharding gathers at a time; all of a model without blocks."""
    blocks = getattr(model, "blocks", None)
    parts: Any = blocks if isinstance(blocks, nn.ModuleList) else [model]
    return max(sum(p.numel() for p in part.parameters()) for part in parts)


def memory(case: Case, rows: int) -> Memory:
    """Of so many rows computed at once."""
    mine = share_of(case.config, case.layout.tensor)
    size, shards = sizes_of(mine, case.optimizer, case.context), case.layout.shards
    kept = activations(mine, case.context, case.precision, case.attention)
    half = case.precision != "float32"
    number = 2 if half else 4
    weights, state = size["weights"] // shards, size["optimizer"] // shards
    gradients = weights
    copies = kept.copies + (number * size["head"] if half else 0)
    passing = 0  # of a block that is gathered, its gradients before they are divided
    if shards > 1:
        outside = size["weights"] // 4 - kept.layers * size["block"] if kept.layers else 0
        copies = number * 2 * size["block"] + 4 * max(outside, 0)
        passing = 4 * size["block"]
    positions = rows * case.context
    held = 4 * size["head"] + positions * size["width"] * (4 + number)
    each = 12 if positions <= CHUNK else 12 + 2 * number  # what a chunk leaves lies there while the next is computed
    logits = held + each * size["vocab"] * min(CHUNK, positions) + number * size["head"]
    lasting = kept.kept(rows, case.recompute)
    before = gradients if case.accumulating else 0
    blocks = rows * kept.block
    standing = case.base + weights + state
    moments = {
        "loss": standing + copies + before + lasting + logits,
        "backward": standing
        + copies
        + passing
        + max(
            before + lasting + held + 4 * size["head"] + blocks,
            gradients + size["tied"] * 4 * size["head"] + blocks,
        ),
        "step": standing + gradients + size["step"] // shards + size["whole"],
    }
    moment = max(moments, key=moments.__getitem__)
    cache = size["cache"]
    return Memory(case.base, weights, gradients, state, copies, lasting, logits, cache, moments[moment], moment)


def largest_batch(case: Case, capacity: float, most: int = MOST) -> int:
    """The most rows that fit into so many bytes; 0 where not even one does."""

    def fits(rows: int) -> bool:
        return memory(case, rows).peak <= capacity

    return bisected(fits, most)


def bisected(holds: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` for which it holds, if it holds for all below; 0 for none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
