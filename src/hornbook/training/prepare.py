"""From settings to what the loop needs: text, tokeniser, shards, a fresh model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from hornbook import models
from hornbook.config import MODEL_FIELDS, Finetune, Learning, ModelConfig, Train, TransformerConfig
from hornbook.data.batches import Batch, Batches
from hornbook.data.masking import mask_token, mask_tokens
from hornbook.data.mixing import Mixed, MixedBatches, batches
from hornbook.data.shards import Shard
from hornbook.errors import UserError
from hornbook.layers.model import LanguageModel
from hornbook.text.tokenizers import Tokenizer
from hornbook.training.optimizers import DEFAULT_RATES
from hornbook.training.recompute import no_blocks

Settings = TypeVar("Settings", Train, Finetune)


def resolve_config(settings: Train, tokenizer: Tokenizer) -> ModelConfig:
    """The named size with the settings' changes and the tokeniser's vocabulary."""
    separator = tokenizer.eos  # opens documents as well as it closes them here, whatever the tokeniser calls its bos
    return changed(settings).replace(vocab=tokenizer.vocab, bos=separator, eos=separator, pad=tokenizer.pad)


def changed(settings: Train) -> ModelConfig:
    """The named size with the settings' changes. UserError for what it does not have, and what does not go together."""
    base = models.find_size(settings.model)
    changes = {name: value for name in MODEL_FIELDS if (value := getattr(settings, name)) is not None}
    known = set(models.family(base.family).CONFIG.values())
    if foreign := sorted(set(changes) - known):
        raise UserError(f"{settings.model} has no {', '.join('--' + name for name in foreign)}")
    config = base.replace(**changes)
    if "k" in changes and (smoothing := getattr(config, "smoothing", "add-k")) != "add-k":
        raise UserError(f"--k is what add-k adds, and {smoothing} adds nothing: say --smoothing add-k")
    if "layers" in changes and (relaid := getattr(models.family(base.family), "relaid", None)):
        config = relaid(config)
    if isinstance(config, TransformerConfig):
        check_heads(config.resolved())
    elif settings.recompute:
        raise no_blocks()
    return config


def by_recipe(settings: Settings) -> Settings:
    """A fresh model's optimiser and rate, where they are left open: its family's recipe."""
    recipe = getattr(models.family(models.find_size(settings.model).family), "RECIPE", {})  # counted rungs have none
    optimizer = settings.optimizer or recipe.get("optimizer", "adamw")
    rate = recipe["lr"] if optimizer == recipe.get("optimizer") else DEFAULT_RATES[optimizer]
    return dataclasses.replace(settings, optimizer=optimizer, lr=rate if settings.lr is None else settings.lr)


def check_heads(config: TransformerConfig) -> None:
    """UserErrors for heads that the width cannot be divided among, or that cannot share keys and values."""
    if config.dim % config.heads:
        raise UserError(f"--dim {config.dim} cannot be divided among {config.heads} heads")
    if config.heads % config.kv_heads:
        raise UserError(f"{config.heads} heads cannot share {config.kv_heads} --kv-heads")
    turning = int(config.head_dim * config.rotary_share)
    if config.positions == "rotary" and (turning % 2 or not turning):
        channels = f"of the {config.head_dim} channels of a head {turning} would turn"
        raise UserError(f"rotary positions turn pairs of channels, and {channels}")


def row_length(settings: Learning, config: ModelConfig) -> int:
    """Tokens in a row: a model that is trained further may be built for more."""
    return settings.context or config.context


def make_batches(
    settings: Train, model: LanguageModel, text: Shard | Mixed
) -> tuple[Batches | MixedBatches, Callable[[int], Batch]]:
    """The sampler of a run, and batch(k): next-token targets, or hidden tokens for an encoder."""
    assert settings.batch != "auto"
    sampler = batches(text, settings.batch, row_length(settings, model.config), settings.seed, settings.apart)
    if model.causal:
        return sampler, sampler.get
    mask, vocab = mask_token(model.tokenizer), model.config.vocab
    return sampler, lambda k: mask_tokens(sampler.get(k), mask, vocab, (settings.seed, k))
