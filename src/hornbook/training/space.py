"""How large a checkpoint will be, before there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from hornbook.formats.peft import adapter_sizes
from hornbook.layers.model import LanguageModel

NUMBERS: dict[str, Callable[[torch.Size], int]] = {
    "AdamW": lambda shape: 2 * shape.numel(),
    "Muon": lambda shape: shape.numel(),
    "Adafactor": lambda shape: (
        shape.numel() // shape[-1] + shape.numel() // shape[-2] if len(shape) > 1 else shape.numel()
    ),
}
"""Optimiser -> how many numbers it keeps for a parameter of a shape; of others the most is assumed, two for each."""
AROUND = 150
"""Bytes of header, and of the count of steps, for a tensor in a file."""


def checkpoint_bytes(model: LanguageModel, optimizers: Iterable[torch.optim.Optimizer], parts: bool = False) -> int:
    """Bytes of a checkpoint's weights, or adapter, and optimiser state in float32, with which its other files do not
    count. With `parts`, weights count twice: in parts, and as Hugging Face has them."""
    sizes = [p.numel() for p in model.parameters()] if model.adapter is None else adapter_sizes(model)
    kept = [
        NUMBERS.get(type(optimizer).__name__, NUMBERS["AdamW"])(p.shape)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    ]
    sizes = sizes * 2 if parts else sizes
    return 4 * (sum(sizes) + sum(kept)) + AROUND * (len(sizes) + 3 * len(kept))
