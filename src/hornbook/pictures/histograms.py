"""Weights and activations as histograms, with what is hard to keep in 8 bits marked.

One number far from the others stretches the scale that all of them share (Dettmers et al. 2022, LLM.int8(), section 3).
What counts as far is what `hornbook quantize` reports: weights 6 deviations off, activations of size 6.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hornbook.adapt.layer_report import FAR
from hornbook.adapt.quantized import Quantized
from hornbook.errors import UserError
from hornbook.inspection.activations import record
from hornbook.inspection.arithmetic import join
from hornbook.layers.model import LanguageModel
from hornbook.layers.transformer import Transformer
from hornbook.pictures.reading import at_rest, read
from hornbook.pictures.style import COLOURS, QUIET, logarithmic, sheet, styled, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEAR, BEYOND, LARGEST = 120, 60, 1e6
"""Bins up to FAR either way, equally wide; and on each side beyond it, up to so large, each wider than the last."""


@dataclass(frozen=True)
class Histogram:
    """How often numbers of a kind are how large."""

    kind: str
    edges: Tensor
    """(N + 1,)"""
    counts: Tensor
    """(N,) float64"""
    far: int
    """Numbers that are FAR off."""
    numbers: int
    largest: float
    """The size of the largest."""
    columns: int = 0
    """Of activations: columns of a product's input, over all layers, in which a number is far off."""


def matrices(model: LanguageModel) -> Iterator[tuple[str, Tensor]]:
    """All weight matrices by name, in full one at a time."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            yield name, parameter.detach()
    for name, module in model.named_modules():
        if isinstance(module, Quantized):
            yield name, torch.cat([module.decoded(rows) for rows in module.pieces()])


def weight_histograms(model: LanguageModel) -> list[Histogram]:
    """Matrices of a kind (all blocks' queries) together, each less its mean and by its own deviation. UserError for a
    counted model."""
    found: dict[str, Histogram] = {}
    for name, weight in matrices(model):
        numbers = weight.float().flatten().cpu()
        apart = (numbers - numbers.mean()) / numbers.std(correction=0).clamp(min=1e-30)
        kind = re.sub(r"\d+\.|_l\d+$|\.weight$", "", name)
        new = histogram(kind, apart, lambda x: x > FAR)
        found[kind] = added(found[kind], new) if kind in found else new
    if not found:
        raise UserError("this model has no weight matrices: it looks up what it has counted")
    return list(found.values())


def histogram(kind: str, numbers: Tensor, far: Callable[[Tensor], Tensor]) -> Histogram:
    """Of numbers (N,) float32."""
    beyond = torch.logspace(math.log10(FAR), math.log10(LARGEST), BEYOND + 1)[1:]
    edges = torch.cat([-beyond.flip(0), torch.linspace(-FAR, FAR, NEAR + 1), beyond])
    counts = torch.histogram(numbers.clamp(-float(edges[-1]), float(edges[-1])), edges).hist.double()
    sizes = numbers.abs()
    return Histogram(kind, edges, counts, int(far(sizes).sum()), numbers.numel(), float(sizes.max()))


def added(one: Histogram, other: Histogram) -> Histogram:
    """Two of the same edges as one."""
    return replace(
        one,
        counts=one.counts + other.counts,
        far=one.far + other.far,
        numbers=one.numbers + other.numbers,
        largest=max(one.largest, other.largest),
        columns=one.columns + other.columns,
    )


def inputs(model: LanguageModel) -> dict[str, list[str]]:
    """What matrix products read, by kind: names of activations, a layer each. UserError for a counted model."""
    if model.counted:
        raise UserError("this model has no activations: it looks up what it has counted")
    if not isinstance(model, Transformer):
        layers: Any = model.recurrent
        return {
            "token embeddings": ["tokens.embedding"],
            "states": [f"layers.{layer}.state" for layer in range(layers.num_layers)],
        }
    every, blocks = range(len(model.blocks)), [f"blocks.{layer}" for layer in range(len(model.blocks))]
    before = [f"{blocks[layer - 1]}.output" if layer else "embedding" for layer in every]
    pre = model.config.pre_norm
    inner = "gated" if model.config.gated else "activation"
    above = "mlp" if pre else "cross" if hasattr(model.blocks[0], "cross_norm") else "attention"
    return {
        "read by query, key, value": [f"{block}.attention_norm" for block in blocks] if pre else before,
        "read by attention's output": [f"{block}.attention.mixed" for block in blocks],
        "read by the MLP's way up": [f"{block}.{above}_norm" for block in blocks],
        "read by the MLP's way down": [f"{block}.mlp.{inner}" for block in blocks],
    }


def activation_histograms(model: LanguageModel, tokens: Tensor) -> list[Histogram]:
    """tokens (T,) int64 -> what matrix products read of them, all layers of a kind together."""
    wanted, found = inputs(model), []
    with at_rest(model):
        values = record(model, tokens, {name for kind in wanted.values() for name in kind})
    for kind, layers in wanted.items():
        rows = [columns_of(values[name]) for name in layers]
        whole = histogram(kind, torch.cat([x.flatten() for x in rows]), lambda x: x >= FAR)
        found.append(replace(whole, columns=sum(int((x.abs() >= FAR).any(0).sum()) for x in rows)))
    return found


def columns_of(value: Tensor) -> Tensor:
    """(1,T,D), or heads (1,H,T,K), as a product reads them: (T,D) float32 on the CPU."""
    return (join(value) if value.ndim == 4 else value)[0].float().cpu()


def weights(model: LanguageModel) -> Figure:
    """The histogram of each kind of weight matrix, weights more than 6 deviations from their mean marked."""
    told = f"numbers more than {FAR:g} deviations off stretch the scale that int8 gives to all around them"
    return drawn(weight_histograms(model), "Weights", told, "deviations from the matrix's mean")


def activations(model: LanguageModel, text: str | Sequence[int] | Tensor) -> Figure:
    """The histogram of what each kind of product reads, activations of size 6 or more marked."""
    reading = read(model, text)
    told = f"of size {FAR:g} or more: what LLM.int8() keeps apart" + (f"; {reading.note}" if reading.note else "")
    return drawn(activation_histograms(model, reading.tokens), "Activations", told, "activation")


@styled
def drawn(found: Iterable[Histogram], title: str, note: str, unit: str) -> Figure:
    found = list(found)
    across = min(len(found), 3 if len(found) > 4 else 2)
    down = math.ceil(len(found) / across)
    figure = sheet(3.3 * across, 1.1 + 2.1 * down, title, note)
    panels = figure.subplots(down, across, squeeze=False)
    for place, axes in enumerate(panels.flat):
        if place >= len(found):
            axes.set_axis_off()
            continue
        panel(axes, found[place])
        if place % across == 0:
            axes.set_ylabel("numbers")
        if place + across >= len(found):
            axes.set_xlabel(unit)
    return figure


def panel(axes: Any, one: Histogram) -> None:
    """One histogram on a logarithmic axis; horizontally too, beyond what is near."""
    from matplotlib.ticker import FuncFormatter

    edges, counts = one.edges.numpy(), one.counts.numpy()
    for start, stop, colour in (
        (0, BEYOND, COLOURS[1]),
        (BEYOND, BEYOND + NEAR, COLOURS[0]),
        (BEYOND + NEAR, len(counts), COLOURS[1]),
    ):
        axes.stairs(counts[start:stop], edges[start : stop + 1], color=colour, fill=True)
    axes.set_xscale("symlog", linthresh=FAR, linscale=2)
    logarithmic(axes)
    for side in (-FAR, FAR):
        axes.axvline(side, color=QUIET, linewidth=0.8, linestyle="--")
    shown = max(1.5 * FAR, 1.2 * one.largest)
    ticks = [FAR, *(10.0**n for n in (2, 4, 6) if 10**n < shown)]
    axes.set(xlim=(-shown, shown), ylim=(0.7, None))
    axes.set_xticks([*(-tick for tick in ticks), 0, *ticks])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, place: written(x)))
    axes.minorticks_off()
    where = f" in {one.columns:,} columns" if one.columns else ""
    told = f"{one.far:,} of {one.numbers:,} far off{where}"
    axes.set_title(f"{one.kind}\n{told}\nlargest: {one.largest:,.1f}", fontsize=7.5)
