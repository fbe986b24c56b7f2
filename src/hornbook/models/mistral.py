"""Mistral 7B (Jiang et al. 2023): Llama with grouped queries at every size and, at first, a sliding window.

In version 0.1 a position sees the 4,096 before it only; version 0.3 sees all, and has a larger vocabulary.
"""

from __future__ import annotations

from hornbook.layers.transformer import Transformer
from hornbook.models import llama

Model = Transformer


SIZES = {
    "mistral-tiny": llama.size(256, 4, 4, 2, 704, 256, family="mistral", window=128, tied=True),
    "mistral-7b": llama.size(4096, 32, 32, 8, 14336, 32768, family="mistral", vocab=32000, bos=1, eos=2, window=4096),
    "mistral-7b-0.3": llama.size(
        4096, 32, 32, 8, 14336, 32768, family="mistral", vocab=32768, bos=1, eos=2, rope_theta=1e6
    ),
}

HUB = {"mistral-7b": "mistralai/Mistral-7B-v0.1", "mistral-7b-0.3": "mistralai/Mistral-7B-v0.3"}

RECIPE = llama.RECIPE

HF = {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "hidden_act": "silu",
}

BIASES = ("attention_bias", "mlp_bias")
CONFIG = {key: ours for key, ours in llama.CONFIG.items() if key not in BIASES} | {"sliding_window": "window"}

ABSENT = llama.ABSENT | {  # what Hugging Face means by a key that config.json leaves out
    "context": 131072,
    "kv_heads": 8,
    "mlp": 14336,
    "window": 4096,
}

GGUF = llama.GGUF

WEIGHTS = llama.WEIGHTS
