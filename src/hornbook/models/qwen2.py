"""Qwen2 and Qwen2.5 (Yang et al. 2024): Llama with biases on the projections to queries, keys and values."""

from __future__ import annotations

from functools import partial

from hornbook.layers.transformer import Transformer
from hornbook.models import llama

Model = Transformer

ENDS = {"bos": 151643, "eos": 151643}
size = partial(llama.size, family="qwen2", qkv_bias=True, norm_eps=1e-6, rope_theta=1e6)

SIZES = {
    "qwen2-tiny": size(256, 4, 4, 2, 704, 256, tied=True),
    "qwen2.5-0.5b": size(896, 24, 14, 2, 4864, 32768, vocab=151936, tied=True, **ENDS),
    "qwen2.5-1.5b": size(1536, 28, 12, 2, 8960, 131072, vocab=151936, tied=True, **ENDS),
    "qwen2.5-7b": size(3584, 28, 28, 4, 18944, 131072, vocab=152064, **ENDS),
}

HUB = {"qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B", "qwen2.5-1.5b": "Qwen/Qwen2.5-1.5B", "qwen2.5-7b": "Qwen/Qwen2.5-7B"}

RECIPE = llama.RECIPE

HF = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_act": "silu",
    "use_sliding_window": False,
}

OTHERS = ("attention_bias", "mlp_bias", "head_dim")
CONFIG = {key: ours for key, ours in llama.CONFIG.items() if key not in OTHERS}

ABSENT = llama.ABSENT | {  # what Hugging Face means by a key that config.json leaves out
    "vocab": 151936,
    "context": 32768,
    "bos": None,
    "eos": None,
    "mlp": 22016,
    "kv_heads": 32,
    "qkv_bias": True,
}

GGUF = {"architecture": "qwen2"}

WEIGHTS = llama.WEIGHTS
