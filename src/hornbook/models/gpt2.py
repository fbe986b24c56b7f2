"""GPT-2 (Radford et al. 2019): a decoder with learned positions, norms before each sub-layer and a tied head.

Stored form: OpenAI's weights are those of a 1x1 convolution ("Conv1D"), so they are (inputs, outputs), and query, key
and value lie side by side in one matrix. Both are undone on the way in and redone on the way out.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hornbook.config import TransformerConfig
from hornbook.layers.transformer import Transformer

Model = Transformer

FIXED: dict[str, Any] = {
    "norm": "layer",
    "activation": "gelu_tanh",
    "positions": "learned",
    "bias": True,
    "tied": True,
}


def size(dim: int, layers: int, heads: int, context: int = 1024, vocab: int = 50257) -> TransformerConfig:
    ends: dict[str, Any] = {"bos": 50256, "eos": 50256} if vocab else {}
    return TransformerConfig("gpt2", vocab, context, dim=dim, layers=layers, heads=heads, **ends, **FIXED)


SIZES = {
    "gpt2-tiny": size(256, 4, 4, context=256, vocab=0),
    "gpt2-small": size(256, 6, 4, context=256, vocab=0),
    "gpt2": size(768, 12, 12),
    "gpt2-medium": size(1024, 24, 16),
    "gpt2-large": size(1280, 36, 20),
    "gpt2-xl": size(1600, 48, 25),
}

RECIPE = {"optimizer": "muon", "lr": 0.004}

HF = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
}

CONFIG = {
    "n_positions": "context",
    "n_embd": "dim",
    "n_layer": "layers",
    "n_head": "heads",
    "n_inner": "mlp",
    "layer_norm_epsilon": "norm_eps",
    "tie_word_embeddings": "tied",
    "embd_pdrop": "dropout",
    "attn_pdrop": "dropout",
    "resid_pdrop": "dropout",
}

ABSENT = {  # what Hugging Face means by a key that config.json leaves out: the smallest GPT-2
    "vocab": 50257,
    "context": 1024,
    "bos": 50256,
    "eos": 50256,
    "dim": 768,
    "layers": 12,
    "heads": 12,
    "norm_eps": 1e-5,
    "tied": True,
    "dropout": 0.1,
}

WEIGHTS = {
    "transformer.wte.weight": "embedding.weight",
    "transformer.wpe.weight": "positions.weight",
    "transformer.h.{i}.ln_1.weight": "blocks.{i}.attention_norm.weight",
    "transformer.h.{i}.ln_1.bias": "blocks.{i}.attention_norm.bias",
    "transformer.h.{i}.attn.c_attn.weight": (
        "blocks.{i}.attention.query.weight",
        "blocks.{i}.attention.key.weight",
        "blocks.{i}.attention.value.weight",
    ),
    "transformer.h.{i}.attn.c_attn.bias": (
        "blocks.{i}.attention.query.bias",
        "blocks.{i}.attention.key.bias",
        "blocks.{i}.attention.value.bias",
    ),
    "transformer.h.{i}.attn.c_proj.weight": "blocks.{i}.attention.output.weight",
    "transformer.h.{i}.attn.c_proj.bias": "blocks.{i}.attention.output.bias",
    "transformer.h.{i}.ln_2.weight": "blocks.{i}.mlp_norm.weight",
    "transformer.h.{i}.ln_2.bias": "blocks.{i}.mlp_norm.bias",
    "transformer.h.{i}.mlp.c_fc.weight": "blocks.{i}.mlp.up.weight",
    "transformer.h.{i}.mlp.c_fc.bias": "blocks.{i}.mlp.up.bias",
    "transformer.h.{i}.mlp.c_proj.weight": "blocks.{i}.mlp.down.weight",
    "transformer.h.{i}.mlp.c_proj.bias": "blocks.{i}.mlp.down.bias",
    "transformer.ln_f.weight": "final_norm.weight",
    "transformer.ln_f.bias": "final_norm.bias",
    "lm_head.weight": "output.weight",
}


def on_import(name: str, tensor: Tensor) -> Tensor:
    """Conv1D's (inputs, outputs) -> Linear's (outputs, inputs)."""
    convolved = name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
    return tensor.T.contiguous() if convolved else tensor


on_export = on_import  # a transpose is its own inverse
