"""SmolLM3 (Bakouch et al. 2025): Llama in which every fourth block has no positions at all.

The causal mask alone tells those blocks what came before (Kazemnejad et al. 2023, "NoPE").
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from hornbook.config import TransformerConfig
from hornbook.layers.transformer import Transformer
from hornbook.models import llama

Model = Transformer


def still(layers: int, interval: int = 4) -> tuple[int, ...]:
    """The blocks without positions: the last of each `interval`."""
    return tuple(range(interval - 1, layers, interval))


size = partial(llama.size, family="smollm3", tied=True)

SIZES = {
    "smollm3-tiny": size(256, 4, 4, 2, 704, 256, unrotated=still(4)),
    "smollm3-3b": size(
        2048,
        36,
        16,
        4,
        11008,
        65536,
        vocab=128256,
        bos=128000,
        eos=128001,
        norm_eps=1e-6,
        rope_theta=5e6,
        unrotated=still(36),
    ),
}

HUB = {"smollm3-3b": "HuggingFaceTB/SmolLM3-3B-Base"}

RECIPE = llama.RECIPE

HF = {
    "model_type": "smollm3",
    "architectures": ["SmolLM3ForCausalLM"],
    "hidden_act": "silu",
    "use_sliding_window": False,
}

CONFIG = {key: ours for key, ours in llama.CONFIG.items() if key != "head_dim"}

ABSENT = llama.ABSENT | {  # what Hugging Face means by a key that config.json leaves out
    "vocab": 128256,
    "context": 32768,
    "bos": 128000,
    "eos": 128001,
    "pad": 128004,
    "dim": 2048,
    "layers": 36,
    "heads": 16,
    "kv_heads": 4,
    "rope_theta": 2e6,
    "tied": True,
}

WEIGHTS = llama.WEIGHTS


def relaid(config: TransformerConfig) -> TransformerConfig:
    """A config of a named size whose number of layers was changed: its pattern goes on through all of them."""
    return config.replace(unrotated=still(config.layers))


def more_fields(spelled: Mapping[str, Any]) -> dict[str, Any]:
    """`no_rope_layers` has a 1 for each block that rotates; without it an interval says which do not."""
    rotating = spelled.get("no_rope_layers")
    if rotating is None:
        return {"unrotated": still(spelled.get("num_hidden_layers", 36), spelled.get("no_rope_layer_interval", 4))}
    return {"unrotated": tuple(i for i, rotates in enumerate(rotating) if not rotates)}


def more_keys(config: TransformerConfig) -> dict[str, Any]:
    """The way back."""
    return {"no_rope_layers": [int(i not in config.unrotated) for i in range(config.layers)]}
