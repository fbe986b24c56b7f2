"""Tokens -> logits. Every file here is a rung or a family, found by its name.

A family file has `Model` (the class that takes its config), `SIZES` (name -> config), and for files of other programs
`HF` (fixed keys of config.json), `CONFIG` (its other keys -> fields), `ABSENT` (fields that a missing key means) and
`WEIGHTS` (names of tensors -> ours). Where needed: `HUB` (sizes -> published weights), `GGUF` (llama.cpp's name),
`ACCEPTED` (other values of fixed keys), `FORMERLY` (old endings of names), `more_keys` and `more_fields` (what no
single key says), `relaid` (where another number of layers changes more), `LEGEND` and `PAPER` (for `inspect`), and
`on_import` and `on_export` (tensors in another form).
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from hornbook.config import ModelConfig
from hornbook.errors import unknown
from hornbook.layers.class_head import give_class_head
from hornbook.layers.model import LanguageModel


def families() -> list[str]:
    """Names of all families."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def family(name: str) -> ModuleType:
    """The module of a family."""
    if name not in families():
        raise unknown("family", name, families())
    return importlib.import_module(f"{__name__}.{name}")


def sizes() -> dict[str, ModelConfig]:
    """Every named size of every family."""
    return {name: config for f in families() for name, config in family(f).SIZES.items()}


def find_size(name: str) -> ModelConfig:
    """The config of a named size; a UserError with the nearest name otherwise."""
    known = sizes()
    if name not in known:
        raise unknown("model", name, known, "docs/sizes.md has them all.")
    return known[name]


def build(config: ModelConfig) -> LanguageModel:
    """A fresh model; its weights are drawn from torch's global generator."""
    model = family(config.family).Model(config)
    return give_class_head(model, config.labels) if config.labels else model
