"""A model's settings in GGUF metadata, and back. Keys are `ARCHITECTURE.name`; tensors say what has no key.

A file that asks for a part that is not built here is refused, and so is a model of ours that the keys cannot describe:
its logits would silently differ.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hornbook import models
from hornbook.config import RopeScaling, TransformerConfig
from hornbook.errors import UserError, unknown
from hornbook.formats.gguf_file import named, shown
from hornbook.layers.positions import stretched

Shapes = Mapping[str, tuple[int, ...]]

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor (K/2,) by which rates are divided: how llama.cpp keeps Llama 3.1's stretch."""
LARGEST = 1 << 20
"""Of any width or count, far above what is built: a file cannot ask for more than its tensors hold anyway."""
LONGEST_CONTEXT = 1 << 31
FEWEST_TENSORS = 6
"""In a block: two norms, at least two of attention, two of the MLP."""

READ = {
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "use_parallel_residual",
}
SAYS_NOTHING = {"vocab_size", "tensor_data_layout", "rope.scaling.finetuned"}
NEUTRAL = {"attention.causal": True, "rope.scale_linear": 1.0}
"""Values of other keys that ask for nothing; of keys never heard of, 0, false and "none" do not."""


def families_by_architecture() -> dict[str, ModuleType]:
    """llama.cpp's names -> families. Of several with one name, the family called the same stands for it."""
    found: dict[str, ModuleType] = {}
    for name in models.families():
        family = models.family(name)
        architecture = getattr(family, "GGUF", {}).get("architecture")
        if architecture and (architecture not in found or name == architecture):
            found[architecture] = family
    return found


class Told:
    """What a file says of its architecture, with types and ranges checked."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self.metadata, self.architecture = metadata, architecture

    def get(self, key: str, missing: Any = None) -> Any:
        return self.metadata.get(f"{self.architecture}.{key}", missing)

    def wrong(self, key: str, words: str) -> UserError:
        return UserError(f"the GGUF file has {self.architecture}.{key} {shown(self.get(key))}: {words}")

    def size(self, key: str, missing: int | None = None, largest: int = LARGEST) -> int:
        value = self.get(key, missing)
        if type(value) is not int or not 0 < value <= largest:
            raise self.wrong(key, f"it must be a whole number from 1 to {largest:,}")
        return value

    def real(self, key: str, missing: float | None = None) -> float:
        value = self.get(key, missing)
        if type(value) is not float or not math.isfinite(value) or value <= 0:
            raise self.wrong(key, "it must be a number above 0")
        return float(str(np.float32(value)))  # 1e-05, which float32 holds as 9.99999974e-06

    def refuse_foreign(self) -> None:
        """UserError for a key that asks for something that is not built here."""
        for key, value in self.metadata.items():
            architecture, _, rest = key.partition(".")
            if architecture != self.architecture or rest in READ | SAYS_NOTHING:
                continue
            if value != NEUTRAL[rest] if rest in NEUTRAL else value not in (0, "none"):
                raise UserError(f"the GGUF file has {named(key)} {shown(value)}, which is not built here")


def read_config(metadata: Mapping[str, Any], shapes: Shapes, factors: Tensor | None = None) -> TransformerConfig:
    """The settings that metadata and the shapes of tensors describe; factors: the tensor `ROPE_FACTORS`, if there."""
    known = families_by_architecture()
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in known:
        raise unknown("general.architecture in the GGUF file", named(architecture), known)
    base, told = next(iter(known[architecture].SIZES.values())), Told(metadata, architecture)
    told.refuse_foreign()
    fields: dict[str, Any] = {
        "vocab": shapes.get("token_embd.weight", (0,))[0],
        "context": told.size("context_length", largest=LONGEST_CONTEXT),
        "dim": told.size("embedding_length"),
        "layers": told.size("block_count", largest=max(1, len(shapes) // FEWEST_TENSORS)),
        "mlp": told.size("feed_forward_length"),
        "norm_eps": told.real(epsilon(base)),
        "parallel": told.get("use_parallel_residual", base.parallel) is True,
        "window": None,
        "embedding_dim": 0,
        "tied": "output.weight" not in shapes,
        "qkv_bias": "blk.0.attn_q.bias" in shapes or "blk.0.attn_qkv.bias" in shapes,
        "output_bias": "blk.0.attn_output.bias" in shapes,
        "mlp_bias": "blk.0.ffn_down.bias" in shapes,
    }
    fields |= read_heads(told, fields["dim"])
    if base.positions == "rotary":
        fields |= read_rotation(told, base, fields["head_dim"], factors)
    ids = {"bos": "bos", "eos": "eos", "pad": "padding"}
    fields |= {field: token_id(metadata, name, fields["vocab"]) for field, name in ids.items()}
    return base.replace(**fields)


def epsilon(config: TransformerConfig) -> str:
    return "attention.layer_norm_epsilon" if config.norm == "layer" else "attention.layer_norm_rms_epsilon"


def token_id(metadata: Mapping[str, Any], name: str, vocab: int) -> int | None:
    id = metadata.get(f"tokenizer.ggml.{name}_token_id")
    return id if type(id) is int and 0 <= id < vocab else None


def read_heads(told: Told, dim: int) -> dict[str, int]:
    heads = told.size("attention.head_count")
    kv_heads = told.size("attention.head_count_kv", heads)
    if heads % kv_heads:
        raise told.wrong("attention.head_count_kv", f"{heads} query heads cannot share them evenly")
    if dim % heads and told.get("attention.key_length") is None:
        raise told.wrong("attention.head_count", f"a width of {dim} cannot be shared evenly")
    head_dim = told.size("attention.key_length", dim // heads)
    if told.size("attention.value_length", head_dim) != head_dim:
        raise told.wrong("attention.value_length", f"here it is the key length, {head_dim}")
    return {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}


def read_rotation(told: Told, base: TransformerConfig, head_dim: int, factors: Tensor | None) -> dict[str, Any]:
    channels = told.size("rope.dimension_count", head_dim)
    share = base.rotary_share if int(head_dim * base.rotary_share) == channels else channels / head_dim
    if channels > head_dim or channels % 2 or int(head_dim * share) != channels:
        raise told.wrong("rope.dimension_count", f"heads have {head_dim} channels, and an even number of them turns")
    theta = told.real("rope.freq_base", 10000.0)
    return {"rotary_share": share, "rope_theta": theta, "rope_scaling": read_stretch(told, channels, theta, factors)}


def read_stretch(told: Told, channels: int, theta: float, factors: Tensor | None) -> RopeScaling | None:
    """How positions are stretched: by a key, or by factors, which then must be Llama 3.1's for some settings."""
    kind = told.get("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise unknown("way to stretch rotary positions in the GGUF file", named(kind), ["none", "linear"])
    if kind == "linear":
        return RopeScaling("linear", told.real("rope.scaling.factor"))
    if factors is None or bool((factors == 1).all()):
        return None
    factor = round(float(factors.max()), 4)
    original = told.size("rope.scaling.original_context_length", RopeScaling.original, LONGEST_CONTEXT)
    guess = RopeScaling("llama3", factor, original=original)
    expected = rope_factors(channels, theta, guess)
    if factors.shape != expected.shape or not torch.allclose(factors, expected, rtol=1e-4):
        raise UserError(f"the GGUF file stretches rotary positions by {ROPE_FACTORS}, and not as Llama 3.1 does")
    return guess


def rope_factors(channels: int, theta: float, scaling: RopeScaling) -> Tensor:
    """By what each rate is divided, (K/2,) float32."""
    rates = 1 / theta ** (torch.arange(0, channels, 2, dtype=torch.float32) / channels)
    return rates / stretched(rates, scaling)


def write_config(config: TransformerConfig, architecture: str) -> dict[str, Any]:
    """The metadata of a model's settings. llama.cpp's Llama has no sliding window, so the context is cut down to it:
    within, both are the same."""
    c = config.resolved()
    keys: dict[str, Any] = {
        "context_length": min(c.context, c.window or c.context),
        "embedding_length": c.dim,
        "block_count": c.layers,
        "feed_forward_length": c.mlp,
        "attention.head_count": c.heads,
        "attention.head_count_kv": c.kv_heads,
        epsilon(c): float(c.norm_eps),
        "vocab_size": c.vocab,
    }
    if c.parallel or next(iter(models.family(c.family).SIZES.values())).parallel:
        keys["use_parallel_residual"] = c.parallel
    if c.positions == "rotary":
        keys |= {"attention.key_length": c.head_dim, "attention.value_length": c.head_dim}
        keys |= {"rope.dimension_count": int(c.head_dim * c.rotary_share), "rope.freq_base": float(c.rope_theta)}
        keys |= write_stretch(c.rope_scaling)
    return {"general.architecture": architecture} | {f"{architecture}.{key}": value for key, value in keys.items()}


def write_stretch(scaling: RopeScaling | None) -> dict[str, Any]:
    if scaling is None:
        return {}
    if scaling.kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    return {"rope.scaling.original_context_length": scaling.original}


def check_told(config: TransformerConfig, read: TransformerConfig) -> None:
    """UserError where what a file says is not all that `config` says."""
    c, r = config.resolved(), read.resolved()
    same = {"family", "dropout", "bos", "eos", "pad", "stops", "window"}
    c = c.replace(context=min(c.context, c.window or c.context))
    for field in dataclasses.fields(c):
        ours, theirs = getattr(c, field.name), getattr(r, field.name)
        if field.name not in same and ours != theirs:
            raise UserError(
                f"GGUF cannot say that {field.name} is {ours!r} (it would read {theirs!r}): use the Hugging Face folder"
            )
