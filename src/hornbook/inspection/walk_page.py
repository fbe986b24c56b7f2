"""What `hornbook inspect RUN "text"` shows of a walk, as tables or as one JSON object."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hornbook.errors import UserError
from hornbook.errors import visible as escaped
from hornbook.inspection.backoff import Prediction
from hornbook.inspection.grid import Block, Grid, shaped, wrapped
from hornbook.inspection.steps import Step
from hornbook.inspection.walk import Walk

LAYER = re.compile(r"^(blocks|encoder|layers)\.(\d+)\.")
HEADS = ("step", "what it is", "shape", "mean", "deviation", "norm", "first values")
NOTE = (
    "Each step follows from those above it and the model's weights: made anew one after the other they are the model's "
    "logits, bit for bit with attention written out as here, and but for rounding with a fused kernel. Rows come first "
    "in a shape, then heads, where there are any, then positions. norm is the root of the sum of all squares."
)
WAYS = (
    "A context that was not followed by the token leaves a share of its probability (factor) to shorter ones; one that "
    "was never counted leaves all. The last factor of a token is a probability, and all of them multiply out to the "
    "model's. With Kneser-Ney it is no plain share of the counts: for a shorter context it counts in how many "
    "different places a token stands."
)


def shown(found: Walk, everything: bool = False, layer: int | None = None, wide: bool = True) -> list[Block]:
    """What a person reads: tokens, steps (equal layers folded, or all, or one layer's), predictions.

    Unless there is a `wide` page, what the steps are is told once, below their figures.
    """
    steps = list(rows(found, everything, layer))
    blocks: list[Block] = [title(found), tokens_grid(found)]
    blocks += (
        [Grid(HEADS, steps)] if wide else [Grid(HEADS[:1] + HEADS[2:], [(s[0], *s[2:]) for s in steps]), legend(steps)]
    )
    blocks += [ways_grid(found.ways), wrapped(WAYS)] if found.ways else [wrapped(NOTE)]
    return [*blocks, *([predictions_grid(found)] if found.likeliest(1) else [])]


def legend(steps: list[tuple[str, ...]]) -> Grid:
    """What each kind of step is, by its name within a layer; told of the first of the kind."""
    kinds: dict[str, str] = {}
    for name, told, *_ in steps:
        if told:
            kinds.setdefault(LAYER.sub("", name), told)
    return Grid(HEADS[:2], list(kinds.items()))


def title(found: Walk) -> str:
    model, dtypes = found.model, dict.fromkeys(step.dtype for step in found.steps if not step.counted)
    sizes = f"{len(found.ids)} tokens, {len(found.steps)} steps, {', '.join(dtypes)}"
    return f"{type(model).__name__}, {model.config.family}: {sizes}"


def tokens_grid(found: Walk) -> Grid:
    return Grid(("place", "id", "piece"), [(str(n), str(i), visible(p)) for n, (i, p) in enumerate(pairs(found))])


def pairs(found: Walk) -> Iterator[tuple[int, str]]:
    return zip(found.ids, found.pieces, strict=True)


def visible(piece: str) -> str:
    return repr(piece)


def rows(found: Walk, everything: bool, layer: int | None) -> Iterator[tuple[str, ...]]:
    """A row a step. Between the first and the last layer only what each hands on, unless all are asked for."""
    last = layers(found)
    if layer is not None and not any(layer <= end for end in last.values()):
        held = f"0 to {max(last.values())}" if last else "none"
        raise UserError(f"there is no layer {layer}: this model has {held}")
    for step in found.steps:
        hit = LAYER.match(step.name)
        if layer is not None:
            if hit and int(hit[2]) == layer:
                yield row(step)
            continue
        if hit is None or everything or int(hit[2]) in (0, last[hit[1]]) or last[hit[1]] < 3:
            yield row(step)
            continue
        if step.name == opened(found, hit[1]):
            yield folded(hit[1], last[hit[1]])
        if step.name.endswith((".output", ".state")) and step.name.count(".") == 2:
            yield row(step)


def layers(found: Walk) -> dict[str, int]:
    """The last number of each stack of layers."""
    hits = [hit for step in found.steps if (hit := LAYER.match(step.name))]
    return {hit[1]: int(hit[2]) for hit in hits}


def folded(stack: str, last: int) -> tuple[str, ...]:
    return (
        f"{stack} 1 to {last - 1}",
        "alike, with weights of their own (--all, --layer N); what each hands on:",
        *[""] * 5,
    )


def opened(found: Walk, stack: str) -> str:
    """The name of the first step of the second layer of a stack."""
    return next(step.name for step in found.steps if step.name.startswith(f"{stack}.1."))


def row(step: Step) -> tuple[str, ...]:
    hit = LAYER.match(step.name)
    told = f"{step.told}: {step.formula.replace(hit[0], '') if hit else step.formula}"  # within a layer by short names
    if step.counted:
        return step.name, told, shaped(step.shape), "", "", "", ", ".join(map(str, step.first()))
    figures = (f"{x:.4g}" for x in (step.mean, step.deviation, step.norm))
    return step.name, told, shaped(step.shape), *figures, ", ".join(f"{x:.4g}" for x in step.first())


def predictions_grid(found: Walk) -> Grid:
    """The likeliest, and how likely they are."""
    if found.model.class_head is not None:
        return Grid(("class", "probability"), [(escaped(n), f"{p:.4f}") for n, p in found.likeliest(10)[0].best], 1)
    if found.model.causal:
        last = found.likeliest(10)[0]
        return Grid(
            (f"after {visible(found.pieces[-1])}", "probability"), [(visible(n), f"{p:.4f}") for n, p in last.best], 1
        )
    told = [(found.pieces[at], best) for at, best in found.likeliest(3)]
    cells = [(visible(piece), *(f"{visible(n)} {p:.4f}" for n, p in best)) for piece, best in told]
    return Grid(("at", *("likeliest", "second", "third")[: len(cells[0]) - 1]), cells)


def ways_grid(ways: list[Prediction]) -> Grid:
    """How a counted model came to each probability: its factors one under the other, and their product."""
    cells: list[tuple[str, ...]] = []
    for way in ways:
        product = 1.0
        for number, tried in enumerate(way.way):
            product *= tried.factor
            after = " ".join(map(visible, tried.context)) or "(any)"
            how = (
                "probability"
                if tried.found
                else "unseen: weight of shorter ones"
                if tried.followers
                else "never counted"
            )
            left = visible(way.piece) if not number else ""
            counts = [] if tried.times is None else [f"{tried.times:,}", f"{tried.hits:,}"]
            cells.append((left, after, how, *counts, f"{tried.followers:,}", f"{tried.factor:.4g}", f"{product:.4g}"))
    counts = ["counted", "so followed"] if any(tried.times is not None for way in ways for tried in way.way) else []
    heads = ("predicted", "after", "found", *counts, "different followers", "factor", "so far")
    return Grid(heads, cells, len(heads) - 3)


def as_json(found: Walk, layer: int | None = None) -> dict[str, Any]:
    """The same as one object, every step in it; with `layer`, only that layer's."""
    kept = {cells[0] for cells in rows(found, True, layer)}
    told: dict[str, Any] = {
        "family": found.model.config.family,
        "tokens": [{"id": token, "piece": piece} for token, piece in pairs(found)],
        "steps": [step.summary() for step in found.steps if step.name in kept],
        "predictions": [
            {"place": place, "likeliest": [{"piece": piece, "probability": p} for piece, p in best]}
            for place, best in found.likeliest(10)
        ],
    }
    if found.ways:
        told["ways"] = [
            {"piece": w.piece, "probability": w.probability, "way": [tried._asdict() for tried in w.way]}
            for w in found.ways
        ]
    return told
