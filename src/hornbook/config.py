"""Every settings class, frozen. One class a command: at once its flags, its Python call, the saved JSON and its docs.

This file imports no torch, so that `hornbook --help` is fast. Settings are derived once, after parsing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelConfig:
    """What every rung states about itself. A family with fields of its own subclasses this in its file."""

    family: str
    """The file in `models/` that builds it."""
    vocab: int = 0
    """Number of token ids V; 0 in a size that takes its tokeniser's."""
    context: int = 256
    """Longest sequence T, in tokens, that the model was built or trained for."""
    bos: int | None = None
    """Token id that opens a document (also its separator in packed batches)."""
    eos: int | None = None
    """Token id that closes a document; generation stops there."""
    pad: int | None = None
    """Token id that fills up rows; never predicted, never attended to."""

    def replace(self, **changes: Any) -> ModelConfig:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)
