"""Qwen3 (Yang et al. 2025): Llama whose heads norm their queries and keys, so that no score runs away.

The width of a head is set apart from the model's: 16 heads of 128 at a width of 1,024.
"""

from __future__ import annotations

from functools import partial

from hornbook.layers.transformer import Transformer
from hornbook.models import llama

Model = Transformer

size = partial(llama.size, family="qwen3", query_norm=True, norm_eps=1e-6, rope_theta=1e6)
published = partial(size, context=32768, head_dim=128, vocab=151936, bos=151643, eos=151643)

SIZES = {
    "qwen3-tiny": size(256, 4, 4, 2, 704, 256, tied=True),
    "qwen3-0.6b": published(1024, 28, 16, 8, 3072, tied=True),
    "qwen3-1.7b": published(2048, 28, 16, 8, 6144, tied=True),
    "qwen3-4b": published(2560, 36, 32, 8, 9728, tied=True),
    "qwen3-8b": published(4096, 36, 32, 8, 12288),
}

HUB = {
    "qwen3-0.6b": "Qwen/Qwen3-0.6B-Base",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B-Base",
    "qwen3-4b": "Qwen/Qwen3-4B-Base",
    "qwen3-8b": "Qwen/Qwen3-8B-Base",
}

RECIPE = llama.RECIPE

HF = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_act": "silu",
    "use_sliding_window": False,
}

CONFIG = {key: ours for key, ours in llama.CONFIG.items() if key != "mlp_bias"}

ABSENT = llama.ABSENT | {  # what Hugging Face means by a key that config.json leaves out
    "vocab": 151936,
    "context": 32768,
    "bos": None,
    "eos": None,
    "mlp": 22016,
    "kv_heads": 32,
    "head_dim": 128,
}

GGUF = {"architecture": "qwen3"}

WEIGHTS = llama.WEIGHTS | {
    "model.layers.{i}.self_attn.q_norm.weight": "blocks.{i}.attention.query_norm.weight",
    "model.layers.{i}.self_attn.k_norm.weight": "blocks.{i}.attention.key_norm.weight",
}
