"""Gemma (Gemma Team 2024): Llama with a gated GELU, heads of 256, and a tied head.

Token embeddings are multiplied by the square root of the width, and norms scale by 1 + weight.
"""

from __future__ import annotations

from functools import partial

from hornbook.layers.transformer import Transformer
from hornbook.models import llama

Model = Transformer

size = partial(
    llama.size,
    family="gemma",
    norm="rms_plus_one",
    norm_eps=1e-6,
    activation="gelu_tanh",
    embedding_scale=True,
    tied=True,
)
published = partial(size, context=8192, head_dim=256, vocab=256000, bos=2, eos=1, pad=0)

SIZES = {
    "gemma-tiny": size(256, 4, 4, 1, 704, 256),
    "gemma-2b": published(2048, 18, 8, 1, 16384),
    "gemma-7b": published(3072, 28, 16, 16, 24576),
}

HUB = {"gemma-2b": "google/gemma-2b", "gemma-7b": "google/gemma-7b"}

RECIPE = llama.RECIPE

HF = {
    "model_type": "gemma",
    "architectures": ["GemmaForCausalLM"],
    "hidden_act": "gelu_pytorch_tanh",
    "use_bidirectional_attention": None,
}

ACCEPTED = {
    "hidden_act": ("gelu",),  # which the first files say, and mean the same by
    "use_bidirectional_attention": (False,),
}

CONFIG = {key: ours for key, ours in llama.CONFIG.items() if key != "mlp_bias"}

ABSENT = llama.ABSENT | {  # what Hugging Face means by a key that config.json leaves out: Gemma 7B
    "vocab": 256000,
    "context": 8192,
    "bos": 2,
    "eos": 1,
    "pad": 0,
    "dim": 3072,
    "layers": 28,
    "heads": 16,
    "kv_heads": 16,
    "head_dim": 256,
    "mlp": 24576,
    "tied": True,
}

GGUF = {"architecture": "gemma", "norm_plus_one": True}  # norms are stored with the 1 added

WEIGHTS = llama.WEIGHTS
