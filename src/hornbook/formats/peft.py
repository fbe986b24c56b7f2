"""LoRA adapters in PEFT's form: adapter_config.json and adapter_model.safetensors, under Hugging Face's names.

Beside them a folder of ours has hornbook.json (`peft_base.py`), and config.json, that of the base.
"""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hornbook.adapt.lora import LoRA, adapters, chosen, linear_layers, wrap
from hornbook.adapt.quantization import CLASS_HEAD
from hornbook.atomic import write_json
from hornbook.config import Adapter, ModelConfig
from hornbook.errors import UserError, visible
from hornbook.formats.filling import FLOATS, Undrawn, build_empty, check_finite
from hornbook.formats.huggingface import from_classes, weight_names
from hornbook.formats.peft_base import CONFIG, OURS, PICKLED, WEIGHTS, as_seen_from, base_of, notes
from hornbook.formats.peft_layers import Factors, Slot, divided, fused, shortened, slots
from hornbook.formats.sources import HUB_NAME
from hornbook.formats.weights import Stored, open_weights
from hornbook.layers.class_head import give_class_head
from hornbook.layers.model import LanguageModel
from hornbook.small_files import read_object

PREFIX = "base_model.model."
TENSOR = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<factor>[AB])\.weight")
SAME_BASE = (True, False, None, "gaussian", "eva", "orthogonal")
"""PEFT's ways to begin (`init_lora_weights`) that leave the base as it is."""
HEADS = {"score", "classifier", "pooler"}
"""Names of modules that learn as a whole, beside an adapter: those of class heads."""
FOREIGN: tuple[str, ...] = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
)
"""Settings of PEFT's that make something else of an adapter than W + scale B A."""


def save_adapter(folder: Path, model: LanguageModel, dtype: torch.dtype) -> None:
    """Write the adapter of a model into a folder that has its config.json."""
    adapter, kept = model.adapter, adapters(model)
    assert adapter is not None
    tensors, forms, places = {}, {}, slots(build_empty(model.config))
    for slot in places:
        if not kept.keys().isdisjoint(slot.ours):
            whole = fused(slot, kept)
            forms[slot.theirs] = len(whole.A), whole.scale * len(whole.A)
            for factor, tensor in (("A", whole.A), ("B", whole.B)):
                tensors[f"{PREFIX}{slot.theirs}.lora_{factor}.weight"] = tensor.to(dtype).cpu().contiguous()
    state = model.state_dict()
    whole_ones = class_names(model)
    for theirs, ours in whole_ones.items():
        tensors[f"{PREFIX}{theirs}"] = state[ours].to(dtype).cpu().contiguous()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    shutil.copymode(folder / "config.json", folder / WEIGHTS)
    stated = spelled(
        adapter, model.causal, forms, [slot for slot in places if f"{slot.theirs}.weight" not in whole_ones]
    )
    if whole_ones:
        stated |= {"task_type": "SEQ_CLS", "modules_to_save": modules(whole_ones)}
    write_json(folder / CONFIG, stated)
    own = dataclasses.asdict(adapter) | {"base": as_seen_from(folder, adapter.base)}
    write_json(folder / OURS, {"method": "lora"} | {"base_sha256": own.pop("sha256")} | own)


def adapter_sizes(model: LanguageModel) -> list[int]:
    """How many numbers each tensor has that `save_adapter` writes."""
    kept, found = adapters(model), list[int]()
    for slot in slots(build_empty(model.config)):
        rank = sum(kept[name].rank for name in slot.ours if name in kept)
        found += [rank * slot.width, rank * sum(slot.heights)] if rank else []
    return found + ([] if model.class_head is None else [p.numel() for p in model.class_head.parameters()])


def class_names(model: LanguageModel) -> dict[str, str]:
    """Their names of a class head's tensors -> ours; none where there is no such head."""
    return {theirs: ours[0] for theirs, ours in weight_names(model) if ours[0].startswith(CLASS_HEAD)}


def modules(names: Iterable[str]) -> list[str]:
    """What PEFT calls the parts of a class head, which learn as a whole: score, or classifier and pooler."""
    parts = dict.fromkeys(name.removesuffix(".weight").removesuffix(".bias") for name in names)
    return [part.split(".")[1] if "." in part else part for part in parts]


def spelled(
    adapter: Adapter, causal: bool, forms: Mapping[str, tuple[int, float]], places: list[Slot]
) -> dict[str, Any]:
    """What adapter_config.json says. `forms`: adapted layers of theirs -> rank and alpha."""
    every = [slot.theirs for slot in places]
    (rank, alpha), _ = Counter(forms.values()).most_common(1)[0]
    others: dict[str, tuple[int, float]] = {}
    for other in dict.fromkeys(forms.values()):
        if other != (rank, alpha):
            others |= dict.fromkeys(shortened({name for name, form in forms.items() if form == other}, every), other)
    hub = HUB_NAME.fullmatch(adapter.base)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if causal else None,
        "base_model_name_or_path": hub["repo"] if hub else adapter.base,
        "revision": hub["revision"] if hub else None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": whole(alpha),
        "lora_dropout": adapter.dropout,
        "target_modules": shortened(forms, every),
        "rank_pattern": {name: other[0] for name, other in others.items()},
        "alpha_pattern": {name: whole(other[1]) for name, other in others.items()},
        "fan_in_fan_out": any(slot.transposed for slot in places),
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "init_lora_weights": True,
    }


def whole(value: float) -> float | int:
    """16 for 16.0, as PEFT has it."""
    return round(value) if math.isclose(value, round(value), rel_tol=1e-12) else value


def put_on(model: LanguageModel, folder: Path) -> LanguageModel:
    """Give a model, plain or quantised, the adapter in a folder. In place; UserError where it does not fit."""
    adapter, found = read_adapter(folder, model.config)
    model.requires_grad_(False)
    if labels := labels_of(folder, model):
        give_class_head(model, labels).class_head.requires_grad_(True)  # type: ignore[union-attr]
        fill_class_head(model, folder)
    for name, factors in found.items():
        with Undrawn():
            made = wrap(model, name, len(factors.A), 1.0, adapter.dropout)
        made.scale = factors.scale
        take(made, factors)
    model.adapter = adapter
    return model


def refill(model: LanguageModel, folder: Path) -> None:
    """Fill the adapter that a model has from a folder; UserError where that has another one."""
    kept, (_, found) = adapters(model), read_adapter(folder, model.config)
    if found.keys() != kept.keys() or any(len(found[name].A) != kept[name].rank for name in kept):
        raise UserError(f"the adapter in {folder} changes other layers, or has another rank: it is not this run's")
    for name, factors in found.items():
        take(kept[name], factors)
    fill_class_head(model, folder)


def labels_of(folder: Path, model: LanguageModel) -> tuple[str, ...]:
    """The classes of the head that comes with an adapter; by number where no config.json beside it names them."""
    if (folder / "config.json").is_file():
        try:
            return from_classes(read_object(folder / "config.json"))
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{folder / 'config.json'} names no classes: {str(error)[:120]}") from None
    if read_object(folder / CONFIG).get("task_type") != "SEQ_CLS":
        return ()
    with open_weights(folder, (WEIGHTS, PICKLED)) as weights:
        names = [name for name in weights if name.endswith(("score.weight", "classifier.weight"))]
        rows = [weights[name].shape[0] for name in names]
    return tuple(f"LABEL_{i}" for i in range(rows[0])) if rows else ()


@torch.no_grad()
def fill_class_head(model: LanguageModel, folder: Path) -> None:
    """Fill the class head that a model has from an adapter's folder; UserError where that lacks it."""
    if model.class_head is None:
        return
    state = model.state_dict()
    with open_weights(folder, (WEIGHTS, PICKLED)) as weights:
        for theirs, ours in class_names(model).items():
            name = f"{PREFIX}{theirs}"
            if name not in weights or weights[name].shape != tuple(state[ours].shape):
                raise UserError(f"the adapter lacks the tensor '{name}' of shape {list(state[ours].shape)}")
            tensor = weights[name].read()
            check_finite(name, tensor, infinite=False)
            state[ours].copy_(tensor)


@torch.no_grad()
def take(module: LoRA, factors: Factors) -> None:
    module.A.copy_(factors.A)
    module.B.copy_(factors.B)


def read_adapter(folder: Path, config: ModelConfig) -> tuple[Adapter, dict[str, Factors]]:
    """The adapter in a folder that is not trusted: its settings, and our layers -> their factors.

    UserError for what is no LoRA, or more than that, and what does not fit the model.
    """
    stated, ours, plain = read_stated(folder), notes(folder), build_empty(config)
    own = tuple(map(str, ours["targets"])) if isinstance(ours.get("targets"), list) else ()
    targets = set(chosen(plain, own)) if own else set()
    exact = numeric(ours.get("alpha", 0), folder / OURS, "alpha") / (
        numeric(ours.get("rank", 1), folder / OURS, "rank") or 1
    )
    found: dict[str, Factors] = {}
    places = {slot.theirs: slot for slot in slots(plain)}
    with open_weights(folder, (WEIGHTS, PICKLED)) as weights:
        for theirs, pair in by_layer(weights, set(places), config.family).items():
            rank, scale = rank_and_scale(theirs, stated, folder / CONFIG)
            scale = exact if math.isclose(scale, exact, rel_tol=1e-9) else scale
            A, B = (checked(pair, theirs, factor, places[theirs], rank) for factor in "AB")
            found |= divided(places[theirs], Factors(A, B, scale), targets & set(places[theirs].ours))
    if lost := found.keys() - set(linear_layers(plain)):
        raise UserError(f"{folder} adapts {sorted(lost)[0]}, the head, which stays as it is here")
    if not found:
        raise UserError(f"{folder / WEIGHTS} holds no adapter")
    dropout, base = numeric(stated.get("lora_dropout", 0.0), folder / CONFIG, "lora_dropout"), base_of(folder)
    first = next(iter(found.values()))
    alpha = first.scale * len(first.A)
    return Adapter(len(first.A), alpha, dropout, own or tuple(found), base, str(ours.get("base_sha256", ""))), found


def read_stated(folder: Path) -> dict[str, Any]:
    """adapter_config.json; UserError where that is no LoRA, or more than that."""
    path = folder / CONFIG
    stated = read_object(path)
    if stated.get("peft_type") != "LORA":
        raise UserError(f"{path} has peft_type {str(stated.get('peft_type'))[:40]!r}: possible is LORA")
    odd = [f"{key} {str(stated[key])[:40]}" for key in FOREIGN if stated.get(key)]
    whole_ones = stated.get("modules_to_save") or []
    heads = isinstance(whole_ones, list) and set(map(str, whole_ones)) <= HEADS
    odd += [] if heads else [f"modules_to_save {str(whole_ones)[:40]}"]
    odd += [f"bias {stated['bias']!r}"] if stated.get("bias", "none") != "none" else []
    begun = stated.get("init_lora_weights", True)
    odd += [] if begun in SAME_BASE else [f"init_lora_weights {str(begun)[:40]!r}, which changes the base"]
    if odd:
        raise UserError(f"{path} has {odd[0]}, which is not read here: merge it with peft, and import what comes of it")
    return stated


def by_layer(weights: Mapping[str, Stored], known: set[str], family: str) -> dict[str, dict[str, Stored]]:
    """Their layers -> A and B, as stored."""
    found: dict[str, dict[str, Stored]] = defaultdict(dict)
    for name, stored in weights.items():
        part = TENSOR.fullmatch(name)
        if part is None and f".{name.removeprefix(PREFIX)}".split(".")[-2] in HEADS | {"dense"}:
            continue
        if part is None or part["layer"] not in known:
            raise UserError(f"the adapter has the tensor '{visible(name[:100])}', for which a {family} has no place")
        found[part["layer"]][part["factor"]] = stored
    return found


def checked(pair: Mapping[str, Stored], theirs: str, factor: str, slot: Slot, rank: int) -> torch.Tensor:
    """One tensor of an adapter, float32."""
    name, shape = f"{theirs}.lora_{factor}", (rank, slot.width) if factor == "A" else (sum(slot.heights), rank)
    if factor not in pair:
        raise UserError(f"the adapter lacks the tensor '{name}'")
    if pair[factor].shape != shape or pair[factor].dtype not in FLOATS:
        told = f"shape {list(pair[factor].shape)} and numbers of type {pair[factor].dtype}"
        raise UserError(f"the tensor '{name}' has {told}; the model and its {CONFIG} call for {list(shape)}, floats")
    tensor = pair[factor].read().float()
    check_finite(name, tensor, infinite=False)
    return tensor


def rank_and_scale(theirs: str, stated: Mapping[str, Any], path: Path) -> tuple[int, float]:
    """What adapter_config.json says of a layer. UserError where that is no pair of positive numbers."""
    rank = numeric(by_pattern(theirs, stated, "rank_pattern", stated.get("r", 8), path), path, "r")
    alpha = numeric(by_pattern(theirs, stated, "alpha_pattern", stated.get("lora_alpha", 8), path), path, "lora_alpha")
    if rank < 1 or rank != int(rank) or not alpha:
        raise UserError(f"{path} has rank {rank:g} and alpha {alpha:g} for {theirs}: such an adapter cannot be")
    return int(rank), alpha / (math.sqrt(rank) if stated.get("use_rslora") else rank)


def by_pattern(theirs: str, stated: Mapping[str, Any], key: str, usual: Any, path: Path) -> Any:
    """The value for a layer whose name ends as one of the patterns says, ^ standing for its beginning."""
    patterns = stated.get(key) or {}
    if not isinstance(patterns, dict):
        raise UserError(f"{path} has a {key} that is no object")
    for pattern, value in patterns.items():
        if not re.fullmatch(r"\^?[\w.]+", pattern):
            raise UserError(f"{path} has the {key} {visible(pattern[:60])!r}: possible here are names of layers")
        if f".{theirs}".endswith(f".{pattern}") or pattern == f"^{theirs}":
            return value
    return usual


def numeric(value: Any, path: Path, key: str) -> float:
    """A number from JSON, 0 or more; UserError for anything else."""
    if type(value) not in (int, float) or not 0 <= value < 1e9:
        raise UserError(f"{path} has {key} {str(value)[:40]!r}: it must be a number")
    return float(value)
