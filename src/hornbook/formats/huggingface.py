"""Configs and weights in Hugging Face's spelling, and back.

Each family's tables say what differs; this file only walks over them. Keys of transformers 4 and 5 are both read
(`rope_theta` moved into `rope_parameters`), and both are written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from hornbook import models
from hornbook.config import ModelConfig
from hornbook.errors import UserError, unknown
from hornbook.layers.model import LanguageModel

COMMON = {"vocab_size": "vocab", "bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "pad"}


def to_hf_config(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """What goes into config.json."""
    family, config = models.family(config.family), config.resolved()
    spelled = {key: getattr(config, ours) for key, ours in (COMMON | family.CONFIG).items()}
    if "rope_theta" in spelled:
        spelled["rope_parameters"] = {"rope_type": "default", "rope_theta": spelled["rope_theta"]}
    return {**family.HF, **spelled, "dtype": dtype, "use_cache": True}


def from_hf_config(spelled: Mapping[str, Any]) -> ModelConfig:
    """The config that config.json describes; a UserError for a model type that no family knows."""
    by_type = {models.family(name).HF["model_type"]: name for name in models.families()}
    kind = spelled.get("model_type")
    if kind not in by_type:
        raise unknown("model_type in config.json", str(kind), by_type)
    family = models.family(by_type[kind])
    refuse_foreign_parts(family.HF, spelled)
    spelled = {**(spelled.get("rope_parameters") or {}), **spelled}
    base = next(iter(family.SIZES.values()))
    fields = {ours: spelled[key] for key, ours in (COMMON | family.CONFIG).items() if key in spelled}
    fields = getattr(family, "ABSENT", {}) | fields
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    if isinstance(fields.get("eos"), tuple):
        fields["eos"] = fields["eos"][0]
    reset = {"kv_heads": 0, "head_dim": 0, "mlp": 0}  # what a size of ours states must not stand in for theirs
    known = {field.name for field in dataclasses.fields(base)}
    return base.replace(**{key: value for key, value in (reset | fields).items() if key in known})


def refuse_foreign_parts(fixed: Mapping[str, Any], spelled: Mapping[str, Any]) -> None:
    """UserError where config.json asks for a part that the family here does not have: logits would silently differ."""
    for key, value in fixed.items():
        if key not in ("model_type", "architectures") and spelled.get(key, value) != value:
            raise UserError(f"config.json has {key} {spelled[key]!r}; a {fixed['model_type']} model here has {value!r}")
    stretch = spelled.get("rope_scaling") or spelled.get("rope_parameters") or {}
    if (kind := stretch.get("rope_type", stretch.get("type", "default"))) != "default":
        raise UserError(f"config.json scales rotary positions by the method '{kind}': only 'default' is built here")


def weight_names(model: LanguageModel) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(Hugging Face's name, our names) of every stored tensor; several of ours where theirs is fused."""
    family, present = models.family(model.config.family), model.state_dict().keys()
    for theirs, ours in family.WEIGHTS.items():
        for i in range(getattr(model.config, "layers", 0)) if "{i}" in theirs else (0,):
            names = tuple(n.replace("{i}", str(i)) for n in ([ours] if isinstance(ours, str) else ours))
            if all(name in present for name in names):
                yield theirs.replace("{i}", str(i)), names


def export_weights(model: LanguageModel) -> dict[str, Tensor]:
    """All tensors under Hugging Face's names and in its stored form."""
    state, on_export = model.state_dict(), hook(models.family(model.config.family), "on_export")
    tensors = {
        theirs: on_export(theirs, torch.cat([state.pop(name) for name in ours])) for theirs, ours in weight_names(model)
    }
    assert not state, f"no name in WEIGHTS for {sorted(state)}"
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def import_weights(model: LanguageModel, names: set[str], read: Callable[[str], Tensor]) -> None:
    """Fill `model` from the stored tensors `names`, read one at a time. UserError for what is missing or misshapen."""
    family, state = models.family(model.config.family), model.state_dict()
    on_import = hook(family, "on_import")
    for theirs, ours in weight_names(model):
        spelled = [theirs, *(theirs.replace(new, old) for new, old in getattr(family, "FORMERLY", {}).items())]
        spelled += [name.split(".", 1)[-1] for name in spelled]  # files without their `model.` prefix
        stored = next((name for name in spelled if name in names), None)
        if stored is None:
            raise UserError(f"the weights lack the tensor '{theirs}', which config.json calls for")
        tensor = on_import(theirs, read(stored))
        rows = [state[name].shape[0] if state[name].ndim else 1 for name in ours]
        if list(tensor.shape) != [sum(rows), *state[ours[0]].shape[1:]] and tensor.ndim:
            shape = [sum(rows), *state[ours[0]].shape[1:]]
            raise UserError(f"the tensor '{theirs}' has shape {list(tensor.shape)}; config.json calls for {shape}")
        for name, part in zip(ours, tensor.split(rows) if tensor.ndim else (tensor,), strict=True):
            state[name].copy_(part)


def hook(family: ModuleType, name: str) -> Callable[[str, Tensor], Tensor]:
    """A family's change of stored form; nothing where it has none."""
    return getattr(family, name, lambda _, tensor: tensor)
