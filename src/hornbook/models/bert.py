"""BERT (Devlin et al. 2019): the encoder. GPT-2 that sees both sides, with its norms after the residual sums.

It learns to fill in masked tokens, so it has no next-token probability and is not ranked with the others. Beside the
Transformer's parts it has token types (here always 0), a norm on the embeddings, exact GELU, and a head with a layer
of its own and a bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hornbook.config import TransformerConfig
from hornbook.errors import UserError
from hornbook.layers.transformer import Transformer

FIXED: dict[str, Any] = {
    "norm": "layer",
    "norm_eps": 1e-12,
    "pre_norm": False,
    "activation": "gelu",
    "positions": "learned",
    "embedding_norm": True,
}


@dataclass(frozen=True)
class BertConfig(TransformerConfig):
    """Sizes of an encoder."""

    masked_head: bool = True
    """False for one that only gives hidden states, as sentence encoders do."""


class Bert(Transformer):
    """Transformer with token types and the masked-token head."""

    config: BertConfig
    causal = False

    token_head = ("transform", "transform_norm", "output_bias")

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.token_types = nn.Embedding(2, config.dim)
        nn.init.normal_(self.token_types.weight, std=0.02)
        if config.masked_head:
            self.transform = nn.Linear(config.dim, config.dim)
            self.transform_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
            self.output_bias = nn.Parameter(torch.zeros(config.vocab))
            nn.init.normal_(self.transform.weight, std=0.5 / config.dim**0.5)
            nn.init.zeros_(self.transform.bias)

    @property
    def tied(self) -> bool:
        """Without a head there is nothing to tie."""
        return self.config.masked_head and not self.config.labels

    def class_logits(self, hidden: Tensor) -> Tensor:
        assert self.class_head is not None
        return self.class_head(hidden)

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        assert self.positions is not None
        assert self.embedding_norm is not None
        x = self.embedding(tokens) + self.token_types.weight[0] + self.positions(positions)
        return self.dropout(self.embedding_norm(x))

    def features(self, hidden: Tensor) -> Tensor:
        """(...,D) -> (...,D); a UserError where the model came without a head for masked tokens."""
        if not self.config.masked_head:
            raise UserError("this encoder came without a masked-token head: it gives hidden states, no tokens")
        return self.transform_norm(F.gelu(self.transform(hidden)))

    @property
    def readout_bias(self) -> Tensor | None:
        return self.output_bias if self.config.masked_head and not self.config.labels else None


Model = Bert


def size(dim: int, layers: int, heads: int, context: int = 512, vocab: int = 30522) -> BertConfig:
    pad = 0 if vocab else None
    return BertConfig("bert", vocab, context, pad=pad, dim=dim, layers=layers, heads=heads, **FIXED)


SIZES = {
    "bert-tiny": size(256, 4, 4, context=256, vocab=0),
    "bert-base": size(768, 12, 12),
    "bert-large": size(1024, 24, 16),
}

HUB = {"bert-base": "google-bert/bert-base-uncased", "bert-large": "google-bert/bert-large-uncased"}

RECIPE = {"optimizer": "muon", "lr": 0.004}

HF = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "is_decoder": False,
    "tie_word_embeddings": True,
}

CONFIG = {
    "max_position_embeddings": "context",
    "hidden_size": "dim",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp",
    "layer_norm_eps": "norm_eps",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "dropout",
}

ABSENT = {  # what Hugging Face means by a key that config.json leaves out: the smaller BERT
    "vocab": 30522,
    "context": 512,
    "pad": 0,
    "dim": 768,
    "layers": 12,
    "heads": 12,
    "mlp": 3072,
    "norm_eps": 1e-12,
    "tied": True,
    "dropout": 0.1,
}


def more_fields(spelled: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says otherwise than by a key of its own."""
    named = " ".join(map(str, spelled.get("architectures") or ()))
    return {"masked_head": "BertModel" not in named and "SequenceClassification" not in named}


def more_keys(config: BertConfig) -> dict[str, Any]:
    """The way back."""
    return {} if config.masked_head or config.labels else {"architectures": ["BertModel"]}


FORMERLY = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}
"""Endings of names, now and in the files that were published in 2018."""

WEIGHTS = {
    "bert.embeddings.word_embeddings.weight": "embedding.weight",
    "bert.embeddings.position_embeddings.weight": "positions.weight",
    "bert.embeddings.token_type_embeddings.weight": "token_types.weight",
    "bert.embeddings.LayerNorm.weight": "embedding_norm.weight",
    "bert.embeddings.LayerNorm.bias": "embedding_norm.bias",
    "bert.encoder.layer.{i}.attention.self.query.weight": "blocks.{i}.attention.query.weight",
    "bert.encoder.layer.{i}.attention.self.query.bias": "blocks.{i}.attention.query.bias",
    "bert.encoder.layer.{i}.attention.self.key.weight": "blocks.{i}.attention.key.weight",
    "bert.encoder.layer.{i}.attention.self.key.bias": "blocks.{i}.attention.key.bias",
    "bert.encoder.layer.{i}.attention.self.value.weight": "blocks.{i}.attention.value.weight",
    "bert.encoder.layer.{i}.attention.self.value.bias": "blocks.{i}.attention.value.bias",
    "bert.encoder.layer.{i}.attention.output.dense.weight": "blocks.{i}.attention.output.weight",
    "bert.encoder.layer.{i}.attention.output.dense.bias": "blocks.{i}.attention.output.bias",
    "bert.encoder.layer.{i}.attention.output.LayerNorm.weight": "blocks.{i}.attention_norm.weight",
    "bert.encoder.layer.{i}.attention.output.LayerNorm.bias": "blocks.{i}.attention_norm.bias",
    "bert.encoder.layer.{i}.intermediate.dense.weight": "blocks.{i}.mlp.up.weight",
    "bert.encoder.layer.{i}.intermediate.dense.bias": "blocks.{i}.mlp.up.bias",
    "bert.encoder.layer.{i}.output.dense.weight": "blocks.{i}.mlp.down.weight",
    "bert.encoder.layer.{i}.output.dense.bias": "blocks.{i}.mlp.down.bias",
    "bert.encoder.layer.{i}.output.LayerNorm.weight": "blocks.{i}.mlp_norm.weight",
    "bert.encoder.layer.{i}.output.LayerNorm.bias": "blocks.{i}.mlp_norm.bias",
    "cls.predictions.transform.dense.weight": "transform.weight",
    "cls.predictions.transform.dense.bias": "transform.bias",
    "cls.predictions.transform.LayerNorm.weight": "transform_norm.weight",
    "cls.predictions.transform.LayerNorm.bias": "transform_norm.bias",
    "cls.predictions.bias": "output_bias",
    "cls.predictions.decoder.weight": "output.weight",
    "bert.pooler.dense.weight": "class_head.pool.weight",
    "bert.pooler.dense.bias": "class_head.pool.bias",
    "classifier.weight": "class_head.output.weight",
    "classifier.bias": "class_head.output.bias",
}
