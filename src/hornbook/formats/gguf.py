"""Models in GGUF, the file of llama.cpp and all that is built on it: in and out.

Its tensors have the same names in all architectures, so one table translates them. Three differences of stored form
are undone on the way in and redone on the way out: query and key rows in llama.cpp's order (Llama), queries, keys and
values in one tensor (GPT-2, GPT-NeoX), norms with a 1 added (Gemma).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hornbook import machine, models
from hornbook.adapt.quantization import prepare, receiver
from hornbook.config import Quantization, TransformerConfig
from hornbook.errors import PassingError, UserError, unknown
from hornbook.formats.filling import build_empty, check_finite
from hornbook.formats.gguf_config import ROPE_FACTORS, check_told, read_config, rope_factors, write_config
from hornbook.formats.gguf_file import Entry, GGUFFile, shown, write
from hornbook.formats.gguf_tokenizer import SPECIAL_IDS, read_tokenizer, write_tokenizer
from hornbook.formats.gguf_types import NATIVE, TYPES, WRITTEN, block_formats
from hornbook.formats.gguf_vocabulary import UNUSED
from hornbook.layers.model import LanguageModel
from hornbook.text.tokenizers import Tokenizer

NAMES = {
    "embedding": "token_embd",
    "positions": "position_embd",
    "blocks.{i}.attention_norm": "blk.{i}.attn_norm",
    "blocks.{i}.attention.query": "blk.{i}.attn_q",
    "blocks.{i}.attention.key": "blk.{i}.attn_k",
    "blocks.{i}.attention.value": "blk.{i}.attn_v",
    "blocks.{i}.attention.query_norm": "blk.{i}.attn_q_norm",
    "blocks.{i}.attention.key_norm": "blk.{i}.attn_k_norm",
    "blocks.{i}.attention.output": "blk.{i}.attn_output",
    "blocks.{i}.mlp_norm": "blk.{i}.ffn_norm",
    "blocks.{i}.mlp.gate": "blk.{i}.ffn_gate",
    "blocks.{i}.mlp.up": "blk.{i}.ffn_up",
    "blocks.{i}.mlp.down": "blk.{i}.ffn_down",
    "final_norm": "output_norm",
    "output": "output",
}
"""Our module -> their tensor; `.weight` or `.bias` follows. A family's GGUF["names"] says what differs."""

QUERY, KEY, VALUE = (f"blocks.{{i}}.attention.{part}" for part in ("query", "key", "value"))
QKV = "blk.{i}.attn_qkv"
FUSED = ("gpt2", "gptneox")
"""Architectures that keep queries, keys and values in one tensor, one after the other."""
STRETCHED = "llama"
"""The architecture that takes `ROPE_FACTORS`."""
ABSENT = ("opt",)
"""Families that llama.cpp does not know, beside those that only we have."""
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 7, "BF16": 32}
"""llama.cpp's numbers for files mostly of one format."""
QUANTISATION_VERSION = 2


def load_gguf(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    how: Quantization | None = None,
) -> LanguageModel:
    """The model in a GGUF file, its numbers in `dtype`, ready to use; its tokeniser is `model.tokenizer`.

    With `how`, its matrices are quantised as they come, whatever the file has them in. Memory holds the model and one
    tensor in float32, twice where its rows are rearranged. Raises UserError for a file that is damaged, or that asks
    for what is not built here.
    """
    device = machine.check_device(str(device))
    file = GGUFFile(path)
    if (parts := file.metadata.get("split.count", 1)) != 1:
        raise UserError(
            f"{path} is one of {shown(parts)} parts: join them with llama.cpp's `llama-gguf-split --merge` first"
        )
    shapes = {name: info.shape for name, info in file.tensors.items()}
    if tied_twice(file):
        del shapes["output.weight"]
    config = read_config(file.metadata, shapes, stretch_of(file))
    model = build_empty(config, source=str(path)).to(dtype)
    check_tensors(model, shapes)
    tokenizer = read_tokenizer(file.metadata)
    if tokenizer.vocab > config.vocab:
        raise UserError(f"{path} has {tokenizer.vocab} tokens and an embedding of {config.vocab} rows")
    plain = model
    if how is not None:
        model = prepare(build_empty(config).to(dtype), how)
    model = model.to_empty(device=device)
    fill(plain, file, receiver(model) if how is not None else None)
    model.tokenizer = tokenizer
    return model.eval()


def save_gguf(path: str | Path, model: LanguageModel, tokenizer: Tokenizer, kind: str = "F16") -> None:
    """Write a model and its tokeniser as one GGUF file that llama.cpp runs; whole or not at all.

    kind: F32, F16, BF16, Q8_0 or Q4_0. As llama.cpp's own tools do, vectors and the position table stay F32, rows that
    are no whole number of blocks become F16, and the head of a Q4_0 file is finer (see `stored_kind`). Raises
    UserError for a model that llama.cpp does not know, or a tokeniser that cannot be written.
    """
    if kind not in WRITTEN:
        raise unknown("number format of GGUF", kind, WRITTEN)
    if kind not in NATIVE:
        block_formats(kind)
    table = gguf_table(model)
    config = model.config
    assert isinstance(config, TransformerConfig)
    entries = list(entries_of(model, kind))
    metadata = write_config(config, table["architecture"])
    factors = next((give() for name, _, _, give in entries if name == ROPE_FACTORS), None)
    check_told(config, read_config(metadata, {name: tuple(shape) for name, shape, _, _ in entries}, factors))
    metadata |= {"general.type": "model", "general.name": Path(path).stem, "general.file_type": FILE_TYPES[kind]}
    if kind not in NATIVE:
        metadata["general.quantization_version"] = QUANTISATION_VERSION
    metadata |= tokens_of(tokenizer, config)
    try:
        write(path, metadata, entries)
    except OSError as error:
        raise PassingError(f"could not write {path}: {error.strerror or error}") from error


def gguf_table(model: LanguageModel) -> Mapping[str, Any]:
    """The family's GGUF table; a UserError for a model that llama.cpp does not know, or that is not written here."""
    name = model.config.family
    table = getattr(models.family(name), "GGUF", None)
    if table is None:
        word = name.upper() if len(name) <= 4 else name.replace("_", "-")
        if not model.causal:
            raise UserError(f"llama.cpp has no masked language models such as {word}; use the Hugging Face folder")
        if model.counted:
            raise UserError("llama.cpp has no n-grams; write an .arpa file or a folder")
        if name in ABSENT or models.family(name).HF["model_type"].startswith("hornbook_"):
            raise UserError(f"llama.cpp has no {word}; use the Hugging Face folder")
        raise UserError(f"{word} is not written as GGUF here; use the Hugging Face folder")
    return table


def stored(model: LanguageModel) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(Their name, our names) of every tensor; several of ours where theirs is fused."""
    table = gguf_table(model)
    names = NAMES | table.get("names", {})
    for name in model.state_dict():
        module, _, leaf = name.rpartition(".")
        number = re.match(r"blocks\.(\d+)\.", module)
        block = number[1] if number else ""
        module = re.sub(r"^blocks\.\d+\.", "blocks.{i}.", module)
        if table["architecture"] in FUSED and module in (QUERY, KEY, VALUE):
            if module == QUERY:
                ours = tuple(f"{part}.{leaf}".replace("{i}", block) for part in (QUERY, KEY, VALUE))
                yield f"{QKV}.{leaf}".replace("{i}", block), ours
        elif module not in names:
            raise UserError(f"GGUF has no name for the tensor '{name}': use the Hugging Face folder")
        else:
            yield f"{names[module]}.{leaf}".replace("{i}", block), (name,)


def expected_shape(state: Mapping[str, Tensor], ours: tuple[str, ...]) -> tuple[int, ...]:
    return (sum(state[name].shape[0] for name in ours), *state[ours[0]].shape[1:])


def check_tensors(model: LanguageModel, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """UserError unless the file has the model's tensors, all of them, in their shapes, and no others."""
    state, left = model.state_dict(), dict(shapes)
    left.pop(ROPE_FACTORS, None)
    for theirs, ours in stored(model):
        if theirs not in left:
            raise UserError(f"the GGUF file lacks the tensor '{theirs}', which its metadata call for")
        shape, expected = left.pop(theirs), expected_shape(state, ours)
        if shape != expected:
            raise UserError(f"the tensor '{theirs}' has shape {list(shape)}; the metadata call for {list(expected)}")
    if left:
        raise UserError(
            f"the GGUF file has the tensor {shown(next(iter(left)))}, for which the model here has no place"
        )


def tied_twice(file: GGUFFile) -> bool:
    """Whether the head is the token embedding, written out a second time."""
    one, other = file.tensors.get("token_embd.weight"), file.tensors.get("output.weight")
    if one is None or other is None or (one.shape, one.kind) != (other.shape, other.kind):
        return False
    return np.array_equal(file.raw("token_embd.weight"), file.raw("output.weight"))


def stretch_of(file: GGUFFile) -> Tensor | None:
    info = file.tensors.get(ROPE_FACTORS)
    return file.read(ROPE_FACTORS) if info is not None and len(info.shape) == 1 else None


@torch.no_grad()
def fill(model: LanguageModel, file: GGUFFile, put: Callable[[str, Tensor], None] | None = None) -> None:
    """Copy every tensor in, one at a time, or to `put` by our name. UserError for weights that are no numbers."""
    state = model.state_dict()
    for theirs, ours in stored(model):
        parts = ours_of(theirs, file, model).split([state[name].shape[0] for name in ours])
        for name, part in zip(ours, parts, strict=True):
            put(name, part) if put else state[name].copy_(part)
        del parts, part  # before the next is read


def ours_of(theirs: str, file: GGUFFile, model: LanguageModel) -> Tensor:
    """One tensor of a file in our form."""
    tensor = file.read(theirs)
    check_finite(theirs, tensor, infinite=False)
    return changed(theirs, tensor, model, inwards=True)


def changed(theirs: str, tensor: Tensor, model: LanguageModel, inwards: bool) -> Tensor:
    """A tensor in our form from theirs, or the other way round."""
    table, config = gguf_table(model), model.config
    assert isinstance(config, TransformerConfig)
    c, part = config.resolved(), theirs.split(".")[-2]
    if table.get("norm_plus_one") and part.endswith("norm"):
        return tensor - 1 if inwards else tensor + 1
    if table.get("permuted") and part in ("attn_q", "attn_k"):
        return permuted(tensor, c.heads if part == "attn_q" else c.kv_heads, inwards)
    return tensor


def permuted(tensor: Tensor, heads: int, inwards: bool) -> Tensor:
    """Rows (H K, ...) of rotary heads. llama.cpp's Llama turns channels 2i and 2i + 1 together, ours i and i + K/2."""
    pairs = (-1, 2) if inwards else (2, -1)
    return tensor.unflatten(0, (heads, *pairs)).transpose(1, 2).flatten(0, 2)


def entries_of(model: LanguageModel, kind: str) -> Iterator[Entry]:
    """What `write` needs of every tensor."""
    state = model.state_dict()
    for theirs, ours in stored(model):
        shape = expected_shape(state, ours)
        yield theirs, shape, stored_kind(theirs, shape, kind, model.tied), partial(outwards, model, theirs, ours)
    c = model.config
    assert isinstance(c, TransformerConfig)
    if c.rope_scaling is not None and c.rope_scaling.kind == "llama3":
        if (architecture := gguf_table(model)["architecture"]) != STRETCHED:
            raise UserError(f"llama.cpp stretches rotary positions as Llama 3.1 does in no {architecture}")
        channels = int(c.resolved().head_dim * c.rotary_share)
        yield ROPE_FACTORS, (channels // 2,), "F32", partial(rope_factors, channels, c.rope_theta, c.rope_scaling)


def outwards(model: LanguageModel, theirs: str, ours: tuple[str, ...]) -> Tensor:
    state = model.state_dict()
    tensor = torch.cat([state[name] for name in ours]) if len(ours) > 1 else state[ours[0]]
    return changed(theirs, tensor.float(), model, inwards=False)


def stored_kind(theirs: str, shape: tuple[int, ...], kind: str, tied: bool) -> str:
    """The number format of one tensor in a file of `kind`.

    Errors in the head reach the logits undamped: in a Q4_0 file it is Q8_0. SmolLM2-135M then costs 2.35 nats a token
    on a text where it costs 2.10 in full and 2.46 with a Q4_0 head. (llama.cpp takes Q6_K, which `gguf` cannot write.)
    """
    if len(shape) == 1 or theirs.startswith("position_embd."):
        return "F32"
    if kind == "Q4_0" and theirs == ("token_embd.weight" if tied else "output.weight"):
        kind = "Q8_0"
    return kind if shape[-1] % TYPES[kind].block == 0 else "F16"


def tokens_of(tokenizer: Tokenizer, config: TransformerConfig) -> dict[str, Any]:
    """The tokeniser's metadata, with a token for every row of the embedding and the model's own special ids."""
    if tokenizer.vocab > config.vocab:
        raise UserError(f"the tokeniser has {tokenizer.vocab} tokens and the model {config.vocab}: they do not belong")
    metadata = write_tokenizer(tokenizer)
    spare = range(tokenizer.vocab, config.vocab)
    metadata["tokenizer.ggml.tokens"] += [f"[PAD{id}]" for id in spare]
    metadata["tokenizer.ggml.token_type"] += [UNUSED for _ in spare]
    for key, field in SPECIAL_IDS.items():
        if (id := getattr(config, field, None)) is not None:
            metadata[f"tokenizer.ggml.{key}"] = id
    return metadata
