"""OPT (Zhang et al. 2022): Meta's open replica of GPT-3. GPT-2 with ReLU and a position table that starts at row 2.

The two spare rows were once for padding; they stay, and count as parameters. Texts open with `</s>` (id 2). The 350m
size is the odd one: norms after the residual sums, and embeddings of half the width, projected in and out.
"""

from __future__ import annotations

from typing import Any

from hornbook.config import TransformerConfig
from hornbook.layers.transformer import Transformer

Model = Transformer

FIXED: dict[str, Any] = {
    "norm": "layer",
    "activation": "relu",
    "positions": "learned",
    "position_offset": 2,
}


def size(dim: int, layers: int, heads: int, context: int = 2048, vocab: int = 50272, **rest: Any) -> TransformerConfig:
    ends: dict[str, Any] = {"bos": 2, "eos": 2, "pad": 1} if vocab else {}
    return TransformerConfig("opt", vocab, context, dim=dim, layers=layers, heads=heads, **ends, **FIXED, **rest)


SIZES = {
    "opt-tiny": size(256, 4, 4, context=256, vocab=0),
    "opt-small": size(256, 6, 4, context=256, vocab=0),
    "opt-125m": size(768, 12, 12),
    "opt-350m": size(1024, 24, 16, pre_norm=False, embedding_dim=512),
    "opt-1.3b": size(2048, 24, 32),
    "opt-2.7b": size(2560, 32, 32),
    "opt-6.7b": size(4096, 32, 32),
    "opt-13b": size(5120, 40, 40),
    "opt-30b": size(7168, 48, 56),
    "opt-66b": size(9216, 64, 72),
}

HUB = {name: f"facebook/{name}" for name, config in SIZES.items() if config.vocab}

RECIPE = {"optimizer": "muon", "lr": 0.004}

HF = {
    "model_type": "opt",
    "architectures": ["OPTForCausalLM"],
    "activation_function": "relu",
    "layer_norm_elementwise_affine": True,
    "_remove_final_layer_norm": False,
}

CONFIG = {
    "max_position_embeddings": "context",
    "hidden_size": "dim",
    "word_embed_proj_dim": "embedding_dim",
    "do_layer_norm_before": "pre_norm",
    "enable_bias": ("qkv_bias", "output_bias", "mlp_bias"),
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "ffn_dim": "mlp",
    "tie_word_embeddings": "tied",
    "attention_dropout": "dropout",
    "dropout": "dropout",  # the last one counts where theirs differ
}

ABSENT = {  # what Hugging Face means by a key that config.json leaves out: the smallest OPT
    "vocab": 50272,
    "context": 2048,
    "bos": 2,
    "eos": 2,
    "pad": 1,
    "dim": 768,
    "layers": 12,
    "heads": 12,
    "mlp": 3072,
    "tied": True,
    "dropout": 0.1,
    "pre_norm": True,
}

WEIGHTS = {
    "model.decoder.project_in.weight": "project_in.weight",
    "model.decoder.project_out.weight": "project_out.weight",
    "model.decoder.embed_tokens.weight": "embedding.weight",
    "model.decoder.embed_positions.weight": "positions.weight",
    "model.decoder.layers.{i}.self_attn_layer_norm.weight": "blocks.{i}.attention_norm.weight",
    "model.decoder.layers.{i}.self_attn_layer_norm.bias": "blocks.{i}.attention_norm.bias",
    "model.decoder.layers.{i}.self_attn.q_proj.weight": "blocks.{i}.attention.query.weight",
    "model.decoder.layers.{i}.self_attn.q_proj.bias": "blocks.{i}.attention.query.bias",
    "model.decoder.layers.{i}.self_attn.k_proj.weight": "blocks.{i}.attention.key.weight",
    "model.decoder.layers.{i}.self_attn.k_proj.bias": "blocks.{i}.attention.key.bias",
    "model.decoder.layers.{i}.self_attn.v_proj.weight": "blocks.{i}.attention.value.weight",
    "model.decoder.layers.{i}.self_attn.v_proj.bias": "blocks.{i}.attention.value.bias",
    "model.decoder.layers.{i}.self_attn.out_proj.weight": "blocks.{i}.attention.output.weight",
    "model.decoder.layers.{i}.self_attn.out_proj.bias": "blocks.{i}.attention.output.bias",
    "model.decoder.layers.{i}.final_layer_norm.weight": "blocks.{i}.mlp_norm.weight",
    "model.decoder.layers.{i}.final_layer_norm.bias": "blocks.{i}.mlp_norm.bias",
    "model.decoder.layers.{i}.fc1.weight": "blocks.{i}.mlp.up.weight",
    "model.decoder.layers.{i}.fc1.bias": "blocks.{i}.mlp.up.bias",
    "model.decoder.layers.{i}.fc2.weight": "blocks.{i}.mlp.down.weight",
    "model.decoder.layers.{i}.fc2.bias": "blocks.{i}.mlp.down.bias",
    "model.decoder.final_layer_norm.weight": "final_norm.weight",
    "model.decoder.final_layer_norm.bias": "final_norm.bias",
    "lm_head.weight": "output.weight",
}
