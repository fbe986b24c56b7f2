"""What a name stands for as a config, and the same model in other sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hornbook import models
from hornbook.config import ModelConfig, Quantization, TransformerConfig
from hornbook.errors import UserError
from hornbook.formats.coded import read_quantization
from hornbook.formats.config_json import read_config
from hornbook.formats.peft_base import described_by
from hornbook.formats.sources import beside
from hornbook.text.tokenizer_training import BPE_VOCAB


def find_config(source: str, vocab: int | None = None) -> ModelConfig:
    """The config of a run or Hugging Face folder, of which only config.json is read, or of a named size.

    A size that takes its tokeniser's vocabulary gets `vocab`, or what a tokeniser has here by default. Raises UserError
    where there is no such thing, and for a `vocab` beside a folder, which states its own.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if vocab is not None:
            raise UserError(f"{source} states its own vocabulary: leave out --vocab, which is for named sizes")
        return read_config(described_by(path))
    if path.is_file() or source.startswith("hf:"):
        raise UserError(f"inspect takes folders and named sizes: first `hornbook import {source} runs/x`")
    if "/" in source or source.startswith("."):
        near = beside(source)
        hint = f". Did you mean '{near}'?" if near else "; a named size is possible too, such as gpt2"
        raise UserError(f"there is no run or model folder '{source}'{hint}")
    config = models.find_size(source)
    return config.replace(vocab=vocab or config.vocab or BPE_VOCAB)


def find_quantization(source: str) -> Quantization | None:
    """How the model in a folder is quantised; None where it is not, and for a named size."""
    path = Path(source).expanduser()
    return read_quantization(described_by(path)) if path.is_dir() else None


def stand_in(config: ModelConfig, sizes: Mapping[str, int]) -> ModelConfig:
    """The same model in other sizes (vocab, context, dim, heads, kv_heads, head_dim, mlp, embedding_dim, entries).

    What is equal in `config` stays equal: heads that fill the width, heads that share no keys, an MLP of four widths,
    embeddings of the model's own width. So its shapes tell which sizes each tensor is made of.
    """
    c = config.resolved()
    new = {name: value for name, value in sizes.items() if hasattr(c, name)}
    if isinstance(c, TransformerConfig):
        if c.heads * c.head_dim == c.dim:
            new["dim"] = new["heads"] * new["head_dim"]
        if c.kv_heads == c.heads:
            new["kv_heads"] = new["heads"]
        if c.mlp == 4 * c.dim:
            new["mlp"] = 4 * new["dim"]
        if c.embedding_dim == c.dim:
            new["embedding_dim"] = new["dim"]
    if "entries" not in new:
        return c.replace(**new)
    levels = range(getattr(c, "order", 0) - 1)
    return c.replace(**new | {"entries": (new["vocab"] + 1, *(new["entries"] + 1000 * k for k in levels))})
