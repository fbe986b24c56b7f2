"""Number formats of the tensors in GGUF files: how many bytes they take, and bytes to floats and back.

F32, F16 and BF16 are read and written here. The others store blocks of weights with a scale of their own (ggml's "Q"
and "IQ" formats); the package `gguf` knows them all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hornbook.errors import UserError, missing_extra


class Format(NamedTuple):
    """How ggml lays weights out."""

    number: int
    """Which stands for it in files."""
    block: int
    """Weights that share a scale; rows are whole blocks."""
    size: int
    """Bytes a block."""


TYPES = {
    "F32": Format(0, 1, 4),
    "F16": Format(1, 1, 2),
    "BF16": Format(30, 1, 2),
    "Q4_0": Format(2, 32, 18),
    "Q4_1": Format(3, 32, 20),
    "Q5_0": Format(6, 32, 22),
    "Q5_1": Format(7, 32, 24),
    "Q8_0": Format(8, 32, 34),
    "Q2_K": Format(10, 256, 84),
    "Q3_K": Format(11, 256, 110),
    "Q4_K": Format(12, 256, 144),
    "Q5_K": Format(13, 256, 176),
    "Q6_K": Format(14, 256, 210),
    "IQ1_S": Format(19, 256, 50),
    "IQ1_M": Format(29, 256, 56),
    "IQ2_XXS": Format(16, 256, 66),
    "IQ2_XS": Format(17, 256, 74),
    "IQ2_S": Format(22, 256, 82),
    "IQ3_XXS": Format(18, 256, 98),
    "IQ3_S": Format(21, 256, 110),
    "IQ4_NL": Format(20, 32, 18),
    "IQ4_XS": Format(23, 256, 136),
    "TQ1_0": Format(34, 256, 54),
    "TQ2_0": Format(35, 256, 66),
}
"""By ggml's name; all that are read."""

NAMES = {layout.number: name for name, layout in TYPES.items()}
WRITTEN = ("F32", "F16", "BF16", "Q8_0", "Q4_0")
NATIVE = ("F32", "F16", "BF16")
LARGEST_HALF = 65504.0


def row_bytes(kind: str, width: int) -> int:
    """Bytes of a row of `width` weights, which must be whole blocks."""
    layout = TYPES[kind]
    assert width % layout.block == 0
    return width // layout.block * layout.size


def decode(rows: NDArray[np.uint8], kind: str) -> NDArray[np.float32]:
    """Rows of bytes (N, bytes a row) -> floats (N, W)."""
    if kind == "F32":
        return rows.view("<f4")
    if kind == "F16":
        return rows.view("<f2").astype(np.float32)
    if kind == "BF16":  # the upper half of a float32
        return (rows.view("<u2").astype(np.uint32) << 16).view(np.float32)
    package, number = block_formats(kind)
    with np.errstate(all="ignore"):  # a damaged scale may be infinite; whoever loads weights looks for that
        return package.dequantize(rows, number)


def encode(rows: Tensor, kind: str) -> NDArray[Any]:
    """Floats (N, W) float32 on the CPU -> an array whose bytes are the file's. UserError for a weight that is beyond
    `kind`."""
    if kind == "F32":
        return rows.numpy()
    if kind == "BF16":
        return rows.to(torch.bfloat16).view(torch.int16).numpy()
    if not bool((rows.abs() <= LARGEST_HALF).all()):
        raise UserError(f"a weight is not a number, or beyond the {LARGEST_HALF:,.0f} that {kind} can hold: write BF16")
    if kind == "F16":
        return rows.to(torch.float16).numpy()
    package, number = block_formats(kind)
    return package.quantize(rows.numpy(), number)


def block_formats(kind: str) -> tuple[Any, Any]:
    """The `gguf` package's conversions and its number for `kind`; a UserError where the package is missing."""
    try:
        from gguf import GGMLQuantizationType, quants
    except ImportError:
        raise missing_extra("gguf", "formats", f"reading or writing {kind} weights") from None
    return quants, GGMLQuantizationType[kind]
