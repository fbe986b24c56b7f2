"""What `hornbook inspect` shows of a model, as text and tables or as one JSON object."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from hornbook import models
from hornbook.adapt.quantization import described
from hornbook.inspection.grid import Block, Grid, amount, shaped, sized, wrapped
from hornbook.inspection.tree import Part

if TYPE_CHECKING:
    from hornbook.inspection.anatomy import Anatomy
    from hornbook.inspection.names import Name

FIGURES = ("parameters", "share", "bytes", "FLOPs/token")
COUNTED = (
    "Counted: nothing is learnt by gradient. Level k holds the n-grams of k tokens that occurred. keys_k says which "
    "they are (integers, sorted; level 1 has a row for every token and one for the start of a document, and needs "
    "no keys), log_probs_k holds the log-probability of the last token after the others, backoffs_k the weight that is "
    "left to shorter contexts. Keys take memory, but are no parameters."
)
FRESH = " A fresh model has level 1 only: the other levels grow with the text that it counts."
MARKS = {
    "fused": "fused: several of ours in one tensor, put together along their first axis",
    "transposed": "transposed: theirs is (inputs, outputs), ours (outputs, inputs)",
    "reordered": "reordered: the same numbers in another order",
    "changed": "changed: theirs holds other numbers, from which ours follow",
    "tied": "tied: one tensor under two names, counted and stored once",
}


def shown(found: Anatomy, layers: bool = True, names: bool = True) -> list[Block]:
    """What a person reads: the module tree and its sums, the names of the reference, or both."""
    blocks = [title(found)]
    if layers:
        blocks += [tree_grid(found), kinds_grid(found), formula_text(found), *notes(found)]
    if names:
        blocks += names_grids(found)
    stated, why = found.paper
    return [*blocks, f"The paper states {stated}; exact are {found.parameters:,}.\n{why}"] if stated else blocks


def title(found: Anatomy) -> Block:
    about = " ".join((models.family(found.config.family).__doc__ or "").split("\n\n")[0].split())
    return f"{found.name}: {about}"


def tree_grid(found: Anatomy) -> Grid:
    """A row for every part, indented by what holds it."""
    rows, around = [], {-1: Part("", "", -1, 1)}
    for part in found.parts:
        outer, around[part.depth] = around[part.depth - 1], part
        many = part.copies // outer.copies
        what = ", ".join(map(shaped, part.shapes))
        if part.is_scores:
            what = f"over {found.context:,} positions"
        elif many > 1:
            what = f"{part.parameters // part.copies:,} each"
        module = f"{many} x {part.module}" if many > 1 else part.module
        label = "  " * part.depth + part.path.removeprefix(f"{outer.path}.")
        rows.append((label, f"= {part.tied_to}" if part.tied_to else module, what, *figures(part, found)))
    whole = ("total", type(found.model).__name__, "", *figures(found.whole, found))
    return Grid(("part", "module", "shape", *FIGURES), [*rows, whole], len(FIGURES))


def kinds_grid(found: Anatomy) -> Grid:
    """Sums by what parts are for."""
    tied = {part.kind: part.tied_to for part in found.parts if part.tied_to}
    sums = {kind: dataclasses.replace(part, tied_to=tied.get(kind, "")) for kind, part in found.kinds.items()}
    rows = [(kind, *figures(part, found)) for kind, part in (sums | {"total": found.whole}).items()]
    return Grid(("in all", *FIGURES), rows, len(FIGURES))


def figures(part: Part, found: Anatomy) -> tuple[str, ...]:
    """The last columns of a row."""
    if part.tied_to and not part.parameters:
        return "tied", "-", "-", amount(part.flops)
    if not part.parameters:
        return "-", "-", sized(part.bytes) if part.bytes else "-", amount(part.flops)
    return f"{part.parameters:,}", f"{part.parameters / found.parameters:.1%}", sized(part.bytes), amount(part.flops)


def formula_text(found: Anatomy) -> str:
    """The number of parameters, spelt out."""
    f = found.formula
    steps = "\n           = ".join(dict.fromkeys([f.letters, f.numbers, f.sums, f"{f.value:,}"]))
    where = ", ".join(f"{letter} = {value:,} ({told})" for letter, (value, told) in f.legend.items())
    return f"parameters = {steps}\n{wrapped(f'with {where}')}"


def notes(found: Anatomy) -> list[Block]:
    """What the figures mean."""
    told: list[Block] = [wrapped(COUNTED + ("" if getattr(found.config, "entries", ()) else FRESH))]
    if not found.model.counted:
        seen = "of which it sees half on average" if found.model.causal else "all of which it sees"
        row = any(part.is_scores for part in found.parts)
        among = f" in a row of {found.context:,}, {seen}" if row else ""
        how = found.model.quantization
        number = "Bytes are those of float32; bfloat16 takes half."
        if how is not None:
            number = f"Quantised: {described(how)}; all else float32."
        told = [
            wrapped(
                f"{number} FLOPs are those of reading one token{among}; "
                f"training on one takes three times as many: {amount(3 * found.whole.flops)}."
            )
        ]
    size = models.sizes().get(found.name)
    if size is not None and not size.vocab:
        known = f"{found.config.vocab:,} ids"
        told.append(f"{found.name} takes the vocabulary of its tokeniser; here that has {known}: set it with --vocab.")
    return told


def names_grids(found: Anatomy) -> list[Block]:
    """The reference's names beside ours, and what its abbreviations mean."""
    architecture = models.family(found.config.family).HF["architectures"][0]
    heads = (f"in {architecture}", "shape", "here", "shape", "differs", "i")
    blocks: list[Block] = [Grid(heads, [row for name in found.names for row in name_rows(name)])]
    marks = {mark for name in found.names for mark in name.marks}
    if marks:
        blocks.append("\n".join(line for mark, line in MARKS.items() if mark in marks))
    return [*blocks, Grid(("short", "for"), list(found.legend.items()))] if found.legend else blocks


def name_rows(name: Name) -> list[tuple[str, ...]]:
    """A line for each of our tensors; theirs stands beside the first."""
    ours = [(text, shaped(shape)) for text, shape in zip(name.ours, name.our_shapes, strict=True)]
    first = (name.theirs, shaped(name.their_shape), *ours[0], ", ".join(name.marks), name.layers)
    return [first, *(("", "", *more, "", "") for more in ours[1:])]


def as_json(found: Anatomy, layers: bool, names: bool) -> dict[str, Any]:
    """The same as one object, every figure exact."""
    told: dict[str, Any] = {"name": found.name, "family": found.config.family, "parameters": found.parameters}
    if found.model.quantization is not None:
        told["quantization"] = dataclasses.asdict(found.model.quantization)
    if found.paper[0]:
        told["paper"] = {"states": found.paper[0], "why": found.paper[1]}
    if layers:
        told |= {
            "config": dataclasses.asdict(found.config.resolved()),
            "context": found.context,
            "bytes": found.whole.bytes,
            "flops_per_token": found.whole.flops,
            "training_flops_per_token": 3 * found.whole.flops,
            "formula": dataclasses.asdict(found.formula),
            "kinds": {kind: exact(part, found) for kind, part in found.kinds.items()},
            "parts": [dataclasses.asdict(part) | exact(part, found) for part in found.parts],
        }
    if names:
        told |= {"names": [dataclasses.asdict(name) for name in found.names], "legend": found.legend}
    return told


def exact(part: Part, found: Anatomy) -> dict[str, Any]:
    share = part.parameters / found.parameters if found.parameters else 0.0
    return {"parameters": part.parameters, "share": share, "bytes": part.bytes, "flops": part.flops}
