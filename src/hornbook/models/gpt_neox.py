"""GPT-NeoX (Black et al. 2022) and Pythia (Biderman et al. 2023): attention and MLP side by side.

GPT-2 with rotary positions on a quarter of each head's channels, exact GELU, an untied head, and both sub-layers
reading the same input. Stored form: query, key and value of each head lie together, head by head.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hornbook.config import TransformerConfig
from hornbook.layers.transformer import Transformer

Model = Transformer

FIXED: dict[str, Any] = {
    "norm": "layer",
    "activation": "gelu",
    "positions": "rotary",
    "rotary_share": 0.25,
    "parallel": True,
    "tied": False,
}


def size(dim: int, layers: int, heads: int, context: int = 2048, vocab: int = 50304, **rest: Any) -> TransformerConfig:
    ends: dict[str, Any] = {"bos": 0, "eos": 0} if vocab else {}
    sizes = {"dim": dim, "layers": layers, "heads": heads, "vocab": vocab, "context": context}
    return TransformerConfig(**({"family": "gpt_neox"} | FIXED | sizes | ends | rest))


SIZES = {
    "pythia-tiny": size(256, 4, 4, context=256, vocab=0, tied=True),
    "pythia-14m": size(128, 6, 4),
    "pythia-70m": size(512, 6, 8),
    "pythia-160m": size(768, 12, 12),
    "pythia-410m": size(1024, 24, 16),
    "pythia-1b": size(2048, 16, 8),
    "pythia-1.4b": size(2048, 24, 16),
    "pythia-2.8b": size(2560, 32, 32),
    "pythia-6.9b": size(4096, 32, 32, vocab=50432),
    "pythia-12b": size(5120, 36, 40, vocab=50688),
    "gpt-neox-20b": size(6144, 44, 64, vocab=50432),
}

HUB = {name: f"EleutherAI/{name}" for name, config in SIZES.items() if config.vocab}

RECIPE = {"optimizer": "muon", "lr": 0.004}

HF = {
    "model_type": "gpt_neox",
    "architectures": ["GPTNeoXForCausalLM"],
    "hidden_act": "gelu",
}

CONFIG = {
    "max_position_embeddings": "context",
    "hidden_size": "dim",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp",
    "layer_norm_eps": "norm_eps",
    "rotary_emb_base": "rope_theta",
    "rotary_pct": "rotary_share",
    "use_parallel_residual": "parallel",
    "attention_bias": ("qkv_bias", "output_bias"),
    "tie_word_embeddings": "tied",
    "attention_dropout": "dropout",
    "hidden_dropout": "dropout",
}

ABSENT = {  # what Hugging Face means by a key that config.json leaves out: GPT-NeoX-20B
    "vocab": 50432,
    "context": 2048,
    "bos": 0,
    "eos": 2,
    "dim": 6144,
    "layers": 44,
    "heads": 64,
    "mlp": 24576,
    "norm_eps": 1e-5,
    "tied": False,
    "dropout": 0.0,
}

GGUF = {"architecture": "gptneox"}

QKV = ("blocks.{i}.attention.query", "blocks.{i}.attention.key", "blocks.{i}.attention.value")
LAYER = "gpt_neox.layers.{i}"

WEIGHTS = {
    "gpt_neox.embed_in.weight": "embedding.weight",
    f"{LAYER}.input_layernorm.weight": "blocks.{i}.attention_norm.weight",
    f"{LAYER}.input_layernorm.bias": "blocks.{i}.attention_norm.bias",
    f"{LAYER}.attention.query_key_value.weight": tuple(f"{name}.weight" for name in QKV),
    f"{LAYER}.attention.query_key_value.bias": tuple(f"{name}.bias" for name in QKV),
    f"{LAYER}.attention.dense.weight": "blocks.{i}.attention.output.weight",
    f"{LAYER}.attention.dense.bias": "blocks.{i}.attention.output.bias",
    f"{LAYER}.post_attention_layernorm.weight": "blocks.{i}.mlp_norm.weight",
    f"{LAYER}.post_attention_layernorm.bias": "blocks.{i}.mlp_norm.bias",
    f"{LAYER}.mlp.dense_h_to_4h.weight": "blocks.{i}.mlp.up.weight",
    f"{LAYER}.mlp.dense_h_to_4h.bias": "blocks.{i}.mlp.up.bias",
    f"{LAYER}.mlp.dense_4h_to_h.weight": "blocks.{i}.mlp.down.weight",
    f"{LAYER}.mlp.dense_4h_to_h.bias": "blocks.{i}.mlp.down.bias",
    "gpt_neox.final_layer_norm.weight": "final_norm.weight",
    "gpt_neox.final_layer_norm.bias": "final_norm.bias",
    "embed_out.weight": "output.weight",
}


def on_import(name: str, tensor: Tensor, config: TransformerConfig) -> Tensor:
    """(H, 3, K, ...) -> (3, H, K, ...), flattened: all queries, then all keys, then all values."""
    if ".query_key_value." not in name:
        return tensor
    return tensor.unflatten(0, (config.heads, 3, -1)).transpose(0, 1).flatten(0, 2).contiguous()


def on_export(name: str, tensor: Tensor, config: TransformerConfig) -> Tensor:
    """The way back."""
    if ".query_key_value." not in name:
        return tensor
    return tensor.unflatten(0, (3, config.heads, -1)).transpose(0, 1).flatten(0, 2).contiguous()
