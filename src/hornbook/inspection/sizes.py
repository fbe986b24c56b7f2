"""Every named size of every family with its exact number of parameters: the page docs/sizes.md.

python -m hornbook.inspection.sizes docs/sizes.md       writes it anew
"""

from __future__ import annotations

import sys

from hornbook import models
from hornbook.atomic import write_text
from hornbook.config import Inspect
from hornbook.inspection.anatomy import Anatomy, dissect
from hornbook.inspection.formula import LETTERS
from hornbook.inspection.grid import wrapped
from hornbook.text.tokenizer_training import BPE_VOCAB

COMMAND = "python -m hornbook.inspection.sizes docs/sizes.md"

COUNTED = (
    "The parameters of a counted model grow with the text: N2, N3, ... are the different n-grams of 2, 3, ... tokens "
    "in it. The table has a fresh model, where they are 0."
)

COLUMNS = {
    "order": "order",
    "smoothing": "smoothing",
    "cell": "cell",
    "encoder_layers": "encoder layers",
    "layers": "layers",
    "dim": "width",
    "heads": "heads",
    "kv_heads": "key-value heads",
    "head_dim": "head width",
    "mlp": "MLP width",
    "vocab": "vocabulary",
    "context": "context",
}
"""Fields of a config that are shown where a family has them, and what stands above."""


def sizes_page() -> str:
    """The text of docs/sizes.md: a family or size is on it by being in `models/`."""
    letters = ", ".join(f"{letter} {told}" for letter, told in LETTERS.values())
    head = [
        "# Sizes",
        "Every named size with its exact number of parameters; tensors that are shared count once. Sizes that take "
        f"their tokeniser's vocabulary are counted with {BPE_VOCAB:,} ids, as many as `hornbook train` makes by "
        "default. `hornbook inspect NAME` takes one apart.",
        f"In the formulas: {letters}.",
        f"This page is made by `{COMMAND}`; a test compares its counts with those of transformers' models.",
    ]
    return "\n\n".join([*map(wrapped, head), *(block for name in models.families() for block in section(name))]) + "\n"


def section(family: str) -> list[str]:
    """The sizes of one family: what it is, a table, the formulas."""
    module = models.family(family)
    found = [dissect(Inspect(name)) for name in module.SIZES]
    notes = [module.PAPER_NOTE] if hasattr(module, "PAPER_NOTE") else []
    if module.Model.counted:
        notes.append(wrapped(COUNTED))
    return [f"## {family}", (module.__doc__ or "").split("\n\n")[0].strip(), table(found), formulas(found), *notes]


def table(found: list[Anatomy]) -> str:
    """A row a size, a column for each field that the family has."""
    configs = [each.config.resolved() for each in found]
    fields = [name for name in COLUMNS if hasattr(configs[0], name)]
    paper = any(each.paper[0] for each in found)
    rows = [["size", *(COLUMNS[name] for name in fields), "parameters", *(["the paper states"] if paper else [])]]
    rows += [["---", *["---:"] * (len(rows[0]) - 1)]]
    for each, config in zip(found, configs, strict=True):
        values = [getattr(config, name) for name in fields]
        shown = [f"{value:,}" if isinstance(value, int) else str(value) for value in values]
        rows.append([f"`{each.name}`", *shown, f"{each.parameters:,}", *([each.paper[0]] if paper else [])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def formulas(found: list[Anatomy]) -> str:
    """How the parameters are made up, and in which sizes so."""
    sizes: dict[str, list[str]] = {}
    for each in found:
        sizes.setdefault(each.formula.letters, []).append(f"`{each.name}`")
    return "\n".join(f"- `{formula}`: {', '.join(names)}" for formula, names in sizes.items())


def write(path: str) -> None:
    """Write the page to a file, whole or not at all."""
    page = sizes_page()
    write_text(path, page)


if __name__ == "__main__":
    write(sys.argv[1])
