"""Llama (Touvron et al. 2023; Llama 3: Grattafiori et al. 2024); SmolLM2 and TinyLlama are Llamas too.

GPT-2 with RMSNorm, rotary positions, a gated SiLU MLP, grouped queries, no biases, and an untied head. From 3.1 on,
rotary positions are stretched to 16 times the context.
"""

from __future__ import annotations

from typing import Any

from hornbook.config import RopeScaling, TransformerConfig
from hornbook.layers.transformer import Transformer

Model = Transformer

FIXED: dict[str, Any] = {
    "norm": "rms",
    "activation": "silu",
    "gated": True,
    "positions": "rotary",
    "qkv_bias": False,
    "output_bias": False,
    "mlp_bias": False,
    "tied": False,
}


def size(dim: int, layers: int, heads: int, kv_heads: int, mlp: int, context: int, **rest: Any) -> TransformerConfig:
    """A size of Llama, or of a family that differs from it by `rest`."""
    sizes = {"dim": dim, "layers": layers, "heads": heads, "kv_heads": kv_heads, "mlp": mlp, "context": context}
    return TransformerConfig(**({"family": "llama"} | FIXED | sizes | rest))


LLAMA2: dict[str, Any] = {"vocab": 32000, "bos": 1, "eos": 2}
LLAMA3: dict[str, Any] = {"vocab": 128256, "bos": 128000, "eos": 128001, "rope_theta": 500000.0}
LLAMA31 = LLAMA3 | {"context": 131072, "rope_scaling": RopeScaling("llama3", 8.0)}
LLAMA32 = LLAMA31 | {"rope_scaling": RopeScaling("llama3", 32.0), "tied": True}
SMOL: dict[str, Any] = {"vocab": 49152, "bos": 0, "eos": 0, "rope_theta": 100000.0, "tied": True}

SIZES = {
    "llama-tiny": size(256, 4, 4, 2, 704, 256, tied=True),
    "llama-small": size(256, 6, 4, 2, 704, 256, tied=True),
    "llama-2-7b": size(4096, 32, 32, 32, 11008, 4096, **LLAMA2),
    "llama-2-13b": size(5120, 40, 40, 40, 13824, 4096, **LLAMA2),
    "llama-2-70b": size(8192, 80, 64, 8, 28672, 4096, **LLAMA2),
    "llama-3-8b": size(4096, 32, 32, 8, 14336, 8192, **LLAMA3),
    "llama-3-70b": size(8192, 80, 64, 8, 28672, 8192, **LLAMA3),
    "llama-3.1-8b": size(4096, 32, 32, 8, 14336, **LLAMA31),
    "llama-3.1-70b": size(8192, 80, 64, 8, 28672, **LLAMA31),
    "llama-3.2-1b": size(2048, 16, 32, 8, 8192, **LLAMA32),
    "llama-3.2-3b": size(3072, 28, 24, 8, 8192, **LLAMA32),
    "tinyllama-1.1b": size(2048, 22, 32, 4, 5632, 2048, **LLAMA2),
    "smollm2-135m": size(576, 30, 9, 3, 1536, 8192, **SMOL),
    "smollm2-360m": size(960, 32, 15, 5, 2560, 8192, **SMOL),
    "smollm2-1.7b": size(2048, 24, 32, 32, 8192, 8192, **SMOL | {"rope_theta": 130000.0}),
}

HUB = {
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "llama-2-13b": "meta-llama/Llama-2-13b-hf",
    "llama-2-70b": "meta-llama/Llama-2-70b-hf",
    "llama-3-8b": "meta-llama/Meta-Llama-3-8B",
    "llama-3-70b": "meta-llama/Meta-Llama-3-70B",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
    "llama-3.1-70b": "meta-llama/Llama-3.1-70B",
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B",
    "llama-3.2-3b": "meta-llama/Llama-3.2-3B",
    "tinyllama-1.1b": "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M",
    "smollm2-360m": "HuggingFaceTB/SmolLM2-360M",
    "smollm2-1.7b": "HuggingFaceTB/SmolLM2-1.7B",
}

RECIPE = {"optimizer": "muon", "lr": 0.004}

HF = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
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
    "attention_bias": ("qkv_bias", "output_bias"),
    "mlp_bias": "mlp_bias",
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
    "qkv_bias": False,
    "output_bias": False,
    "mlp_bias": False,
}

GGUF = {"architecture": "llama", "permuted": True}  # rows of q and k reordered, for rotations of neighbouring channels

WEIGHTS = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.layers.{i}.input_layernorm.weight": "blocks.{i}.attention_norm.weight",
    "model.layers.{i}.self_attn.q_proj.weight": "blocks.{i}.attention.query.weight",
    "model.layers.{i}.self_attn.q_proj.bias": "blocks.{i}.attention.query.bias",
    "model.layers.{i}.self_attn.k_proj.weight": "blocks.{i}.attention.key.weight",
    "model.layers.{i}.self_attn.k_proj.bias": "blocks.{i}.attention.key.bias",
    "model.layers.{i}.self_attn.v_proj.weight": "blocks.{i}.attention.value.weight",
    "model.layers.{i}.self_attn.v_proj.bias": "blocks.{i}.attention.value.bias",
    "model.layers.{i}.self_attn.o_proj.weight": "blocks.{i}.attention.output.weight",
    "model.layers.{i}.self_attn.o_proj.bias": "blocks.{i}.attention.output.bias",
    "model.layers.{i}.post_attention_layernorm.weight": "blocks.{i}.mlp_norm.weight",
    "model.layers.{i}.mlp.gate_proj.weight": "blocks.{i}.mlp.gate.weight",
    "model.layers.{i}.mlp.gate_proj.bias": "blocks.{i}.mlp.gate.bias",
    "model.layers.{i}.mlp.up_proj.weight": "blocks.{i}.mlp.up.weight",
    "model.layers.{i}.mlp.up_proj.bias": "blocks.{i}.mlp.up.bias",
    "model.layers.{i}.mlp.down_proj.weight": "blocks.{i}.mlp.down.weight",
    "model.layers.{i}.mlp.down_proj.bias": "blocks.{i}.mlp.down.bias",
    "model.norm.weight": "final_norm.weight",
    "lm_head.weight": "output.weight",
}
