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

HUB = {name: f"openai-community/{name}" for name, config in SIZES.items() if config.vocab}

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

GGUF = {"architecture": "gpt2"}

PAPER = {"gpt2": "117M", "gpt2-medium": "345M", "gpt2-large": "762M", "gpt2-xl": "1542M"}
"""Parameters as table 2 of the paper has them."""

PAPER_NOTE = (
    "The paper's 117M, 345M, 762M and 1542M are what one counts with GPT-1's vocabulary of 40,478 tokens instead of\n"
    "GPT-2's 50,257 (`hornbook inspect gpt2 --vocab 40478`); OpenAI has called them an error, without saying which."
)

LEGEND = {
    "wte": "word token embedding: a row for every token of the vocabulary",
    "wpe": "word position embedding: a row for every position in the context",
    "h": "hidden layers: the blocks, numbered from 0",
    "ln_1, ln_2, ln_f": "layer norms: before attention, before the MLP, and the final one after the last block",
    "attn": "attention",
    "c_attn": "query, key and value fused into one matrix; c for the 1x1 convolution (Conv1D) that it was written as",
    "c_proj": "the projection back into the residual stream, which ends attention and MLP",
    "mlp": "multi-layer perceptron: the two linear layers of a block, with GELU between them",
    "c_fc": "fully connected: the MLP's first layer, four times as wide as the model",
    "lm_head": "language-model head: hidden state to logits; the same tensor as wte",
    "attn.bias, attn.masked_bias": "in old files only: the causal mask, which is no weight",
}
"""What the abbreviations in WEIGHTS mean."""

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


def on_import(name: str, tensor: Tensor, config: TransformerConfig) -> Tensor:
    """Conv1D's (inputs, outputs) -> Linear's (outputs, inputs)."""
    convolved = name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
    return tensor.T.contiguous() if convolved else tensor


on_export = on_import  # a transpose is its own inverse
