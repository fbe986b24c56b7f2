"""Llama (Touvron et al. 2023; Llama 3: Grattafiori et al. 2024).

GPT-2 with RMSNorm, rotary positions, a gated SiLU MLP, grouped queries, no biases, and an untied head.
"""

from __future__ import annotations

from typing import Any

from hornbook.config import TransformerConfig
from hornbook.layers.transformer import Transformer

Model = Transformer

FIXED: dict[str, Any] = {
    "norm": "rms",
    "activation": "silu",
    "gated": True,
    "positions": "rotary",
    "bias": False,
}


def size(dim: int, layers: int, heads: int, kv_heads: int, mlp: int, context: int, **rest: Any) -> TransformerConfig:
    sizes: dict[str, Any] = {"dim": dim, "layers": layers, "heads": heads, "kv_heads": kv_heads, "mlp": mlp}
    return TransformerConfig("llama", context=context, **sizes, **FIXED, **{"tied": False, **rest})


LLAMA2: dict[str, Any] = {"vocab": 32000, "bos": 1, "eos": 2, "norm_eps": 1e-5}
LLAMA3: dict[str, Any] = {"vocab": 128256, "bos": 128000, "eos": 128001, "norm_eps": 1e-5, "rope_theta": 500000.0}

SIZES = {
    "llama-tiny": size(256, 4, 4, 2, 704, 256, tied=True),
    "llama-small": size(256, 6, 4, 2, 704, 256, tied=True),
    "llama-2-7b": size(4096, 32, 32, 32, 11008, 4096, **LLAMA2),
    "llama-2-13b": size(5120, 40, 40, 40, 13824, 4096, **LLAMA2),
    "llama-2-70b": size(8192, 80, 64, 8, 28672, 4096, **LLAMA2),
    "llama-3-8b": size(4096, 32, 32, 8, 14336, 8192, **LLAMA3),
    "llama-3-70b": size(8192, 80, 64, 8, 28672, 8192, **LLAMA3),
}

RECIPE = {"optimizer": "muon", "lr": 0.004}

HF = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
}

CONFIG = {
    "max_position_embeddings": "context",
    "hidden_size": "dim",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "mlp",
    "rms_norm_eps": "norm_eps",
    "rope_theta": "rope_theta",
    "tie_word_embeddings": "tied",
    "attention_dropout": "dropout",
}

ABSENT = {  # what Hugging Face means by a key that config.json leaves out: Llama 1, 7B
    "vocab": 32000,
    "context": 2048,
    "bos": 1,
    "eos": 2,
    "dim": 4096,
    "layers": 32,
    "heads": 32,
    "mlp": 11008,
    "norm_eps": 1e-6,
    "tied": False,
    "dropout": 0.0,
    "rope_theta": 10000.0,
}

WEIGHTS = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.layers.{i}.input_layernorm.weight": "blocks.{i}.attention_norm.weight",
    "model.layers.{i}.self_attn.q_proj.weight": "blocks.{i}.attention.query.weight",
    "model.layers.{i}.self_attn.k_proj.weight": "blocks.{i}.attention.key.weight",
    "model.layers.{i}.self_attn.v_proj.weight": "blocks.{i}.attention.value.weight",
    "model.layers.{i}.self_attn.o_proj.weight": "blocks.{i}.attention.output.weight",
    "model.layers.{i}.post_attention_layernorm.weight": "blocks.{i}.mlp_norm.weight",
    "model.layers.{i}.mlp.gate_proj.weight": "blocks.{i}.mlp.gate.weight",
    "model.layers.{i}.mlp.up_proj.weight": "blocks.{i}.mlp.up.weight",
    "model.layers.{i}.mlp.down_proj.weight": "blocks.{i}.mlp.down.weight",
    "model.norm.weight": "final_norm.weight",
    "lm_head.weight": "output.weight",
}
