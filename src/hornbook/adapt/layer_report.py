"""What quantisation did to each matrix: how far its numbers moved, what it had of outliers, and what it takes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hornbook.adapt.quantized import Quantized, worded
from hornbook.layers.model import LanguageModel

FAR = 6.0
"""Standard deviations from which on a weight counts as far off, and the size from which on an activation is an outlier
where nothing else is asked for."""


@dataclass(frozen=True)
class Layer:
    """One matrix, or several of equal shape together."""

    name: str
    shape: tuple[int, int]
    kind: str
    bytes_before: int
    bytes_after: int
    norm: float
    """Frobenius norm before."""
    error: float
    """Frobenius norm of the change, as a share of `norm`."""
    worst: float
    """The same of the column (all weights of one input) where it is largest."""
    worst_column: int
    far: int
    """Weights more than 6 standard deviations from the mean."""
    columns: int | None = None
    """Columns of the input with an activation as large as the threshold, where a text was read."""
    count: int = 1
    """Matrices together."""


@torch.no_grad()
def layer_of(name: str, weight: Tensor, after: Quantized) -> Layer:
    """Compare a matrix (rows, columns) before and after, some rows at a time."""
    moved, size, total = *torch.zeros(2, after.columns, dtype=torch.float64), 0.0
    for rows in after.pieces():
        numbers = weight[rows].float()
        moved += (numbers - after.decoded(rows)).square().sum(0).cpu()
        size += numbers.square().sum(0).cpu()
        total += float(numbers.sum())
    mean = total / weight.numel()
    deviation = math.sqrt(max(0.0, float(size.sum()) / weight.numel() - mean**2))
    far = sum(int(((weight[rows].float() - mean).abs() > FAR * deviation).sum()) for rows in after.pieces())
    shares = torch.where(size > 0, (moved / size.clamp(min=1e-300)).sqrt(), 0.0)
    norm = math.sqrt(float(size.sum()))
    return Layer(
        name=name,
        shape=(after.rows, after.columns),
        kind=worded(after.scheme),
        bytes_before=weight.nbytes,
        bytes_after=after.nbytes,
        norm=norm,
        error=math.sqrt(float(moved.sum())) / norm if norm else 0.0,
        worst=float(shares.max()),
        worst_column=int(shares.argmax()),
        far=far,
    )


def together(layers: Iterable[Layer]) -> list[Layer]:
    """Equal matrices of all blocks as one: `blocks.0-11.mlp.up`, or `blocks.0-2,4-11.mlp.up`; the worst column is that
    of the worst block."""
    groups: dict[object, list[Layer]] = {}
    for layer in layers:
        groups.setdefault((re.sub(r"\.\d+\.", ".{}.", layer.name), layer.shape, layer.kind), []).append(layer)
    return [merged(group) for group in groups.values()]


def spans(numbers: list[int]) -> str:
    """Rising numbers as ranges: 0-2,4."""
    ends = [[numbers[0], numbers[0]]]
    for number in numbers[1:]:
        if number == ends[-1][1] + 1:
            ends[-1][1] = number
        else:
            ends.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ends)


def merged(group: list[Layer]) -> Layer:
    """Sums and worst cases of equal matrices."""
    if len(group) == 1:
        return group[0]
    numbers = sorted(int(re.findall(r"\.(\d+)\.", layer.name)[0]) for layer in group)
    norm = math.sqrt(sum(layer.norm**2 for layer in group))
    moved = math.sqrt(sum((layer.error * layer.norm) ** 2 for layer in group))
    worst = max(group, key=lambda layer: layer.worst)
    return replace(
        worst,
        name=re.sub(r"\.\d+\.", f".{spans(numbers)}.", group[0].name, count=1),
        bytes_before=sum(layer.bytes_before for layer in group),
        bytes_after=sum(layer.bytes_after for layer in group),
        norm=norm,
        error=moved / norm if norm else 0.0,
        far=sum(layer.far for layer in group),
        columns=None if worst.columns is None else max(layer.columns or 0 for layer in group),
        count=len(group),
    )


@torch.inference_mode()
def outlying_columns(model: LanguageModel, tokens: Tensor, threshold: float) -> Mapping[str, int]:
    """For every nn.Linear that a pass over tokens (B,T) comes by: input columns with a number of at least `threshold`.

    The head's are counted under `output`, or, where it is tied, under `embedding`.
    """
    found: dict[str, int] = {}

    def count(name: str, x: Tensor) -> None:
        found[name] = int((x.detach().abs() >= threshold).flatten(0, -2).any(0).sum())

    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: count(name, inputs[0]))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        features = model.features(model.hidden(tokens))
    finally:
        for hook in hooks:
            hook.remove()
    count("embedding" if model.output is None else "output", features)
    return found
