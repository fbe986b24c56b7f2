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
from hornbook.config import ModelConfig, RopeScaling, TransformerConfig
from hornbook.errors import UserError, unknown
from hornbook.layers.model import LanguageModel

STRETCHES = {
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low",
        "high_freq_factor": "high",
        "original_max_position_embeddings": "original",
    },
}
"""Ways to stretch rotary positions, and what their settings are called: theirs -> RopeScaling's."""

ROPE = {"rope_theta": "rope_theta", "partial_rotary_factor": "rotary_share"}
"""Keys of `rope_parameters` -> ours, for families with rotary positions."""

CLASSIFIER = "ForSequenceClassification"
CLASS_HEAD = {"score.weight": "class_head.output.weight"}
"""A decoder's."""

COMMON = {"vocab_size": "vocab", "bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "pad"}


def to_hf_config(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """What goes into config.json."""
    family, config = models.family(config.family), config.resolved()
    spelled = {key: getattr(config, names(ours)[0]) for key, ours in (COMMON | family.CONFIG).items()}
    if isinstance(config, TransformerConfig) and config.positions == "rotary":
        spelled |= to_rope(config)
    if config.stops:
        spelled["eos_token_id"] = [config.eos, *config.stops]
    more: dict[str, Any] = getattr(family, "more_keys", lambda config: {})(config)
    return {**family.HF, **spelled, **more, **to_classes(config, family), "dtype": dtype, "use_cache": True}


def to_classes(config: ModelConfig, family: ModuleType) -> dict[str, Any]:
    """The classes that a class head tells apart."""
    if not config.labels:
        return {}
    kind = next(name for name in family.HF["architectures"]).partition("For")[0].removesuffix("LMHeadModel")
    return {
        "architectures": [kind + CLASSIFIER],
        "id2label": {str(i): label for i, label in enumerate(config.labels)},
        "label2id": {label: i for i, label in enumerate(config.labels)},
    }


ONE_OF_SEVERAL = "single_label_classification"
"""The kind of classes that there is here: the others' scores are no shares of one."""
MOST_LABELS = 100_000
"""Classes that a config.json may ask for."""


def from_classes(spelled: Mapping[str, Any]) -> tuple[str, ...]:
    """Labels by their ids; none where the architecture is no classifier. UserError for fewer than two."""
    if not any(str(name).endswith(CLASSIFIER) for name in spelled.get("architectures") or ()):
        return ()
    if (kind := spelled.get("problem_type")) not in (None, ONE_OF_SEVERAL):
        raise UserError(f"config.json has the problem_type {str(kind)[:40]}: only {ONE_OF_SEVERAL} is built here")
    count = int(spelled.get("num_labels") or 2)
    if count > MOST_LABELS:
        raise UserError(f"config.json has num_labels {str(count)[:40]}, which is absurd: the most is {MOST_LABELS:,}")
    stated = spelled.get("id2label") or {str(i): f"LABEL_{i}" for i in range(count)}
    labels = tuple(str(stated[key]) for key in sorted(stated, key=int))
    if len(set(labels)) < 2 or sorted(map(int, stated)) != list(range(len(labels))):
        raise UserError(f"config.json has the classes {str(labels)[:60]}: a class head tells two or more apart")
    return labels


def to_rope(config: TransformerConfig) -> dict[str, Any]:
    """Rotary settings as transformers 5 keeps them, in `rope_parameters`, and the stretch where version 4 does."""
    stretch: dict[str, Any] = {"rope_type": "default"}
    if config.rope_scaling is not None:
        kind = config.rope_scaling.kind
        stretch = {"rope_type": kind} | {
            theirs: getattr(config.rope_scaling, ours) for theirs, ours in STRETCHES[kind].items()
        }
    share = {} if config.rotary_share == 1 else {"partial_rotary_factor": config.rotary_share}
    told: dict[str, Any] = {"rope_parameters": stretch | share | {"rope_theta": config.rope_theta}}
    return told if config.rope_scaling is None else told | {"rope_scaling": stretch}


def from_hf_config(spelled: Mapping[str, Any]) -> ModelConfig:
    """The config that config.json describes; a UserError for a model type that no family knows."""
    by_type = {models.family(name).HF["model_type"]: name for name in models.families()}
    kind = spelled.get("model_type")
    if kind not in by_type:
        raise unknown("model_type in config.json", str(kind), by_type)
    family = models.family(by_type[kind])
    refuse_foreign_parts(family, spelled)
    base = next(iter(family.SIZES.values()))
    table = COMMON | family.CONFIG
    fields = {name: spelled[key] for key, ours in table.items() if key in spelled for name in names(ours)}
    fields = getattr(family, "ABSENT", {}) | fields
    if isinstance(base, TransformerConfig) and base.positions == "rotary":
        fields |= from_rope(spelled, fields)
    fields |= getattr(family, "more_fields", lambda spelled: {})(spelled)
    fields |= {"labels": from_classes(spelled)}
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    if isinstance(ends := fields.get("eos"), tuple):
        fields |= {"eos": ends[0], "stops": ends[1:]} if ends else {"eos": None}
    reset = dict.fromkeys(("kv_heads", "head_dim", "mlp", "embedding_dim"), 0)  # or our base's would stand for theirs
    known = {field.name for field in dataclasses.fields(base)}
    return base.replace(**{key: value for key, value in (reset | fields).items() if key in known})


def names(ours: str | tuple[str, ...]) -> tuple[str, ...]:
    """The fields, or tensors, of ours that stand for one of theirs."""
    return (ours,) if isinstance(ours, str) else ours


def from_rope(spelled: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary settings from either version's keys; UserError for a stretch that is not built here."""
    stated: dict[str, Any] = {}
    for part in (spelled.get("rope_parameters") or {}, spelled.get("rope_scaling") or {}):
        if any(isinstance(value, dict) for value in part.values()):
            raise UserError("config.json turns different layers by different angles: that is not built here")
        stated |= part | ({"rope_type": part["type"]} if "type" in part else {})
    found = {ours: stated[key] for key, ours in ROPE.items() if key in stated}
    kind = stated.get("rope_type", "default")
    if kind == "default":
        return found
    if kind not in STRETCHES:
        raise unknown("method of stretching rotary positions in config.json", str(kind), ["default", *STRETCHES])
    settings = {ours: stated[key] for key, ours in STRETCHES[kind].items() if stated.get(key) is not None}
    if kind == "llama3" and "original" not in settings and fields.get("context"):
        settings["original"] = fields["context"]
    return found | {"rope_scaling": RopeScaling(kind, **{"factor": 1.0} | settings)}


def refuse_foreign_parts(family: ModuleType, spelled: Mapping[str, Any]) -> None:
    """UserError where config.json asks for a part that the family here does not have: logits would silently differ."""
    if spelled.get("is_causal") is False and family.Model.causal:
        raise UserError(
            f"config.json lets a {family.HF['model_type']} model see both sides: here it sees the past only"
        )
    for key, value in family.HF.items():
        possible = (value, *getattr(family, "ACCEPTED", {}).get(key, ()))
        if key not in ("model_type", "architectures") and spelled.get(key, value) not in possible:
            raise UserError(
                f"config.json has {key} {spelled[key]!r}; a {family.HF['model_type']} model here has {value!r}"
            )


def weight_names(model: LanguageModel) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(Hugging Face's name, our names) of every stored tensor; several of ours where theirs is fused."""
    family, present = models.family(model.config.family), model.state_dict().keys()
    depth = max(getattr(model.config.resolved(), stack, 0) for stack in ("layers", "encoder_layers"))
    for theirs, ours in ((CLASS_HEAD if family.Model.causal else {}) | family.WEIGHTS).items():
        for i in range(depth) if "{i}" in theirs else (0,):
            parts = tuple(name.replace("{i}", str(i)) for name in names(ours))
            if all(name in present for name in parts):
                yield theirs.replace("{i}", str(i)), parts


def stored_weights(model: LanguageModel) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under Hugging Face's name and in its stored form, one at a time; unchanged ones share memory."""
    state, on_export = model.state_dict(), hook(models.family(model.config.family), "on_export")
    for theirs, ours in weight_names(model):
        parts = [state.pop(name) for name in ours]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        yield theirs, on_export(theirs, whole, model.config).contiguous()
    assert not state, f"no name in WEIGHTS for {sorted(state)}"


def export_weights(model: LanguageModel) -> dict[str, Tensor]:
    """All tensors under Hugging Face's names and in its stored form."""
    return dict(stored_weights(model))


def import_weights(
    model: LanguageModel, read: Callable[[str], Tensor], put: Callable[[str, Tensor], None] | None = None
) -> None:
    """Fill `model` from `read`, which gives the stored tensor of a name: one at a time, each freed before the next.

    With `put`, each of our tensors goes there, under our name, instead of into `model`, which may be on 'meta'.
    """
    state, on_import = model.state_dict(), hook(models.family(model.config.family), "on_import")
    for theirs, ours in weight_names(model):
        parts = {name: state[name] for name in ours}
        distribute(on_import(theirs, read(theirs), model.config), parts, put or (lambda name, t: state[name].copy_(t)))


def distribute(stored: Tensor, parts: Mapping[str, Tensor], put: Callable[[str, Tensor], Any]) -> None:
    """Put a tensor where the one of ours goes that it stands for, or the several, one after the other."""
    pieces = stored.split([len(part) for part in parts.values()]) if len(parts) > 1 else (stored,)
    for name, piece in zip(parts, pieces, strict=True):
        put(name, piece)


def hook(family: ModuleType, name: str) -> Callable[[str, Tensor, Any], Tensor]:
    """A family's change of stored form, (their name, tensor, config) -> tensor; nothing where it has none."""
    return getattr(family, name, lambda _, tensor, config: tensor)
