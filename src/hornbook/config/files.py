"""Models in and out, and smaller: `import`, `export` and `quantize`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from hornbook.config.adapting import GROUPS, Quantization
from hornbook.config.checks import above_zero, require, require_words, zero_or_more
from hornbook.errors import UserError


@dataclass(frozen=True)
class Import:
    """Bring a model in, as a folder of ours: hornbook import gpt2 runs/gpt2"""

    source: Annotated[Positional[str], arg(metavar="SOURCE")]
    """A Hugging Face folder, a run, a .gguf file, a published name such as gpt2, or hf:owner/name[@revision]."""
    run: Annotated[Positional[str], arg(metavar="RUN")]
    """The folder to write; it must be new or empty."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the weights in it."""

    def __post_init__(self) -> None:
        require_words(self)


@dataclass(frozen=True)
class Export:
    """Write a model for other programs: hornbook export runs/x x.gguf --type q8_0"""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, or anything else that can be loaded."""
    target: Annotated[Positional[str], arg(metavar="TARGET")]
    """What to write, which must be new: a .gguf or .arpa file, else a Hugging Face folder."""
    format: Literal["hf", "gguf", "arpa"] | None = None
    """Where the target's name does not say it."""
    type: Literal["f32", "bf16", "f16", "q8_0", "q4_0"] | None = None
    """Number format of the weights; default f32 in a folder, f16 in GGUF, where alone q8_0 and q4_0 are possible."""
    shard_size: float = 5.0
    """Gigabytes above which the weights of a folder are spread over several files."""

    def __post_init__(self) -> None:
        require_words(self)
        require(self, ("shard_size",), lambda x: 0 < x < math.inf, "above 0, and finite")


@dataclass(frozen=True)
class Quantize:
    """Keep a model's matrices in 8 or 4 bits: hornbook quantize runs/x int8 --data wikitext-2"""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, or anything else that can be loaded."""
    kind: Annotated[Positional[str], arg(metavar="KIND")]
    """int8, int4 or nf4."""
    out: str | None = None
    """The folder to write, which must be new; default RUN-KIND."""
    group: int | None = None
    """Numbers of a row that share a scale; default 32, of nf4 64. 0 for whole rows, with int8 only."""
    outliers: float = 0.0
    """int8: LLM.int8() with this threshold, 6.0 in the paper; 0 for weights only."""
    symmetric: bool = False
    """int4: no minimum beside each scale, as in GGUF's Q4_0: 4.5 bits a weight instead of 5."""
    double: bool = False
    """nf4: quantise the scales too: 4.13 bits a weight instead of 4.25."""
    head: Literal["int8", "int4", "nf4", "none"] = "int8"
    """What becomes of the token embedding and the head."""
    keep: UseAppendAction[tuple[str, ...]] = ()
    """A module to leave as it is, such as blocks.0; may be given several times."""
    data: str | None = None
    """Score it on this corpus before and after, and count the outliers among its activations."""
    split: Literal["train", "validation", "test"] = "validation"
    column: str = "text"
    context: int | None = None
    """Tokens in a window; default the model's."""
    stride: int | None = None
    """Targets that each further window adds; default half the context."""
    batch: int = 32
    limit: int = 0
    """Use only so many tokens of the split; 0 for all."""
    layers: bool = False
    """A line for every matrix, instead of one for those of all layers together."""
    device: str | None = None
    """cpu, cuda or mps; default the best there is."""
    json: bool = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        require_words(self)
        above_zero(self, "context", "stride", "batch")
        zero_or_more(self, "limit", "group", "outliers")
        self.quantization  # noqa: B018 (says what is wrong with it)
        for name, kind in (("symmetric", "int4"), ("double", "nf4")):
            if getattr(self, name) and kind not in (self.kind, self.head):
                raise UserError(
                    f"--{name} changes {kind} only, and here {self.kind} and, for the head, {self.head} are kept"
                )

    @property
    def quantization(self) -> Quantization:
        """What is asked for; UserError where that cannot be."""
        group = self.group
        if group is None:
            group = 0 if self.outliers and self.kind == "int8" else GROUPS.get(self.kind, 32)
        return Quantization(self.kind, group, self.outliers, self.symmetric, self.double, self.head, self.keep)
