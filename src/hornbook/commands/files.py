"""`hornbook import`, `export` and `quantize`."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from rich.table import Table

from hornbook.commands.printing import console, print_scores
from hornbook.config import Export, Import, Quantize

if TYPE_CHECKING:
    from hornbook.adapt.layer_report import Layer


def import_model(settings: Import) -> None:
    """`hornbook import`."""
    from hornbook.exchange import import_model as bring_in

    print("\n".join(map(str, bring_in(settings))))


def export(settings: Export) -> None:
    """`hornbook export`."""
    from hornbook.exchange import export_model

    print("\n".join(map(str, export_model(settings))))


def quantize(settings: Quantize) -> None:
    """`hornbook quantize`."""
    from hornbook.adapt.layer_report import together
    from hornbook.adapt.quantization import described
    from hornbook.compression import quantize_run

    found = quantize_run(settings)
    if settings.json:
        print(json.dumps(found.summary()))
        return
    print_layers(found.layers if settings.layers else together(found.layers), settings.outliers)
    before, after = found.bytes_before, found.bytes_after
    print(described(found.how))
    print(
        f"{before / 1e6:,.1f} MB in float32 ({before / 2e6:,.1f} in bfloat16) are now "
        f"{after / 1e6:,.1f}: {before / after:.1f} times smaller"
    )
    if "pseudo_perplexity" in found.before:
        figures = found.before["pseudo_perplexity"], found.after["pseudo_perplexity"]
        print("pseudo-perplexity {:.2f}, now {:.2f}".format(*figures))
    elif found.before:
        print_scores({settings.run: dict(found.before), str(found.path): dict(found.after)})
        cost = (found.after["nats"] - found.before["nats"]) / found.before["targets"]
        print(f"token perplexity {math.expm1(cost):+.2%}: {settings.data} {settings.split}")
    print(f"verified on arrival: {found.verified}")
    print(found.path)


def print_layers(layers: list[Layer], outliers: float) -> None:
    """A table of what quantisation did to each matrix."""
    read = any(layer.columns is not None for layer in layers)
    table = Table(box=None, pad_edge=False)
    heads = ["matrix", "shape", "kept as", "bytes", "now", "error", "worst column", "> 6 sd"]
    for head in [*heads, *([f"inputs >= {outliers or 6:g}"] if read else [])]:
        table.add_column(head, justify="left" if head in heads[:3] else "right")
    for layer in layers:
        many = f"{layer.count} x " if layer.count > 1 else ""
        shape = f"{many}{layer.shape[0]:,} x {layer.shape[1]:,}"
        sizes = f"{layer.bytes_before:,}", f"{layer.bytes_after:,}"
        errors = f"{layer.error:.2%}", f"{layer.worst:.2%}", f"{layer.far:,}"
        seen = ["-" if layer.columns is None else f"{layer.columns:,}"] if read else []
        table.add_row(layer.name, shape, layer.kind, *sizes, *errors, *seen)
    console.print(table)
