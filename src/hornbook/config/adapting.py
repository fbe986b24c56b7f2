"""What changes a model that is there: its matrices in few bits, LoRA."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hornbook.errors import UserError, unknown

GROUPS = {"int8": 32, "int4": 32, "nf4": 64}
"""Kinds of quantisation, and how many numbers of a row share a scale where nothing else is asked for."""


@dataclass(frozen=True)
class Quantization:
    """How a model's matrices are kept in few bits (`adapt/`)."""

    kind: str = "int8"
    """'int8', 'int4' or 'nf4': every nn.Linear but the head."""
    group: int = 32
    """Numbers of a row that share a scale; 0 for the whole row, with int8 only."""
    outliers: float = 0.0
    """int8 by rows: above 0 activations are rounded too, except columns with a number as large as this (LLM.int8())."""
    symmetric: bool = False
    """int4: levels around 0, instead of from a minimum that each group has beside its scale."""
    double: bool = False
    """nf4: the scales are quantised too."""
    head: str = "int8"
    """The kind of the token embedding and of the head, weights only; 'none' leaves them as they are."""
    keep: tuple[str, ...] = ()
    """Modules that are left as they are, by name: `blocks.0`, `blocks.1.mlp.down`."""

    def __post_init__(self) -> None:
        for what, name, possible in (("kind", self.kind, GROUPS), ("head", self.head, (*GROUPS, "none"))):
            if name not in possible:
                raise unknown(f"{what} of quantisation", name, possible)
        rows = self.kind == "int8" and self.group == 0
        if not rows and (self.group % 32 or not 32 <= self.group <= 4096):
            also = "0 (whole rows) or " if self.kind == "int8" else ""
            raise UserError(f"a group of {self.group} is not possible: {also}a multiple of 32 up to 4,096")
        if not 0 <= self.outliers < math.inf:
            raise UserError(f"outliers from {self.outliers} on are not possible: 0 or more, as 6.0 in the paper")
        if self.outliers and not rows:
            raise UserError("outliers are kept apart in int8 by rows only: take the kind int8 and leave out the group")


@dataclass(frozen=True)
class Adapter:
    """LoRA: what a model learns beside weights that stay as they are (`adapt/lora.py`)."""

    rank: int = 8
    """Rows of A, columns of B: a matrix becomes W + alpha / rank B A."""
    alpha: float = 16.0
    dropout: float = 0.0
    """Probability, on what A multiplies, while training."""
    targets: tuple[str, ...] = ("all",)
    """Parts of the names of linear layers: `query`, `mlp`, `blocks.0`; `all` for those of every block."""
    base: str = ""
    """The model that it changes: a folder, or hf:owner/name@revision."""
    sha256: str = ""
    """Of that model's weights."""

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 < self.alpha < math.inf or not 0 <= self.dropout < 1:
            raise UserError(
                f"LoRA with rank {self.rank}, alpha {self.alpha} and dropout {self.dropout} is not possible: rank and "
                "alpha are above 0, dropout at least 0 and below 1"
            )
        if not self.targets:
            raise UserError("LoRA needs targets: parts of the names of linear layers, such as query, or all")
