"""config.json of a folder that is not trusted: every size is checked before anything is made from it."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hornbook import models
from hornbook.config import ModelConfig, TransformerConfig
from hornbook.errors import UserError
from hornbook.formats.coded import parse_quantization
from hornbook.formats.huggingface import COMMON, from_hf_config, names
from hornbook.progress import say
from hornbook.small_files import read_object

MOST = {"layers": 10_000, "encoder_layers": 10_000}
"""Largest sizes that are believed; 10 ** 9 for all others."""
POSITIVE = ("vocab", "context", "dim", "layers", "heads", "order", "window")
DERIVED = ("kv_heads", "head_dim", "mlp", "embedding_dim")
"""Fields that may be null: another one says their size."""
IDS = ("bos", "eos", "pad")


def read_config(folder: Path) -> ModelConfig:
    """What the config.json in a folder describes. UserError where it is missing, damaged, absurd or of unknown kind.

    Code that it names (`auto_map`) is never run.
    """
    path = folder / "config.json"
    spelled = read_object(path)
    kind = spelled.get("model_type")
    known = {models.family(name).HF["model_type"] for name in models.families()}
    if spelled.get("auto_map"):
        if not isinstance(kind, str) or kind not in known:
            raise UserError(f"{path}: a model of type {kind!r} needs remote code, which is never run")
        say(f"{path} names remote code (auto_map), which is never run: a {kind} model is built here without it")
    return parse_config(spelled, str(path))


def with_ends(config: ModelConfig, folder: Path) -> ModelConfig:
    """The config, with the tokens that end texts by generation_config.json alone: instructed models often name more of
    them there."""
    if not (path := folder / "generation_config.json").is_file():
        return config
    stated = read_object(path).get("eos_token_id")
    found = stated if isinstance(stated, list) else [stated]
    known = {config.eos, *config.stops}
    more = tuple(dict.fromkeys(i for i in found if type(i) is int and 0 <= i < config.vocab and i not in known))
    return config.replace(stops=config.stops + more) if more else config


def parse_config(spelled: Mapping[str, Any], path: str = "config.json") -> ModelConfig:
    """The config that a JSON object describes, with all its numbers checked; UserErrors begin with `path`.

    Ids of special tokens that the vocabulary does not have, as GPT-2's defaults are in a smaller one, are none.
    """
    if not isinstance(spelled.get("model_type"), str):
        raise UserError(f"{path} has no model_type, the word that names its family: it is no Hugging Face folder")
    parse_quantization(spelled, path)
    check_raw(spelled, path)
    try:
        config = from_hf_config(spelled)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{path} does not describe a model: {type(error).__name__}, {str(error)[:120]}") from None
    config = config.replace(**{name: None for name in IDS if is_negative(getattr(config, name))})  # -1 for none
    check_fields(config, spelled, path)
    return config.replace(**{name: None for name in IDS if (getattr(config, name) or 0) >= config.vocab})


def is_negative(value: Any) -> bool:
    return type(value) is int and value < 0


def check_raw(spelled: Mapping[str, Any], path: str) -> None:
    """No size may be beyond belief, before families compute with it."""
    tables = [COMMON, *(models.family(name).CONFIG for name in models.families())]
    keys = {key: names(ours)[0] for table in tables for key, ours in table.items()}
    for key, value in spelled.items():
        most = MOST.get(keys.get(key, ""), 10**9)
        if key in keys and type(value) is int and abs(value) > most:
            raise UserError(f"{path} has {key} {str(value)[:40]}, which is absurd: the most is {most:,}")
        if isinstance(value, list) and len(value) > 10**6:
            raise UserError(f"{path} has {len(value):,} entries in {key}, which is absurd")


def check_fields(config: ModelConfig, spelled: Mapping[str, Any], path: str) -> None:
    """UserError for the first field that is not of its type, or that no model can have."""
    table = COMMON | models.family(config.family).CONFIG
    keys = {field: key for key, ours in table.items() for field in names(ours) if key in spelled}
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if fault := field_fault(field.name, value, hints[field.name]):
            raise UserError(f"{path} has {keys.get(field.name, field.name)} {str(value)[:60]!r}: it must be {fault}")
    if isinstance(config, TransformerConfig) and (fault := shape_fault(config)):
        raise UserError(f"{path}: {fault}")


def field_fault(name: str, value: Any, hint: Any) -> str:
    """What a field must be, where it is not."""
    kinds = typing.get_args(hint) if type(None) in typing.get_args(hint) else (hint,)
    if value is None:
        return "" if type(None) in kinds or name in DERIVED else "given"
    if bool in kinds:
        return "" if isinstance(value, bool) else "true or false"
    if int in kinds:
        least = 1 if name in POSITIVE else 0
        return "" if type(value) is int and least <= value <= 10**9 else f"a whole number from {least} to 10 ** 9"
    if float in kinds:
        right = type(value) in (int, float) and math.isfinite(value) and value >= 0
        return "" if right and not (name == "dropout" and value >= 1) else "a number that is possible"
    if str in kinds:
        return "" if isinstance(value, str) else "a word"
    if typing.get_origin(hint) is tuple and typing.get_args(hint)[0] is str:
        return "" if isinstance(value, tuple) and all(isinstance(x, str) for x in value) else "a list of words"
    if typing.get_origin(hint) is tuple:
        right = isinstance(value, tuple) and all(type(x) is int and x >= 0 for x in value)
        return "" if right else "a list of whole numbers"
    for part in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
        if fault := field_fault(part.name, getattr(value, part.name), typing.get_type_hints(type(value))[part.name]):
            return f"such that {part.name} is {fault}"
    return ""


def shape_fault(config: TransformerConfig) -> str:
    """Why the sizes of a Transformer contradict each other, where they do."""
    if not config.head_dim and config.dim % config.heads:
        return f"a width of {config.dim} cannot be divided among {config.heads} heads"
    if config.kv_heads and config.heads % config.kv_heads:
        return f"{config.heads} query heads cannot share {config.kv_heads} key and value heads evenly"
    if config.rotary_share > 1:
        return f"{config.rotary_share} times the channels of a head cannot rotate"
    turning = int(config.resolved().head_dim * config.rotary_share)
    if config.positions == "rotary" and (turning % 2 or not turning or config.rope_theta <= 0):
        return f"{turning} channels of a head cannot rotate in pairs by a theta of {config.rope_theta}"
    scaling = config.rope_scaling
    if scaling is not None and not (scaling.factor > 0 and scaling.high > scaling.low and scaling.original > 0):
        return f"rotary positions cannot be stretched by {scaling}"
    return ""
