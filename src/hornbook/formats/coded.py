"""Folders of quantised models: config.json says how, and quantized.safetensors has the integers and scales as they are.

Nobody else reads these, so the file and the tensors in it have our own names. The folder is not trusted: what
config.json says is checked, and every tensor must have the shape and the number format that follow from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hornbook.adapt.quantized import Quantized
from hornbook.config import Quantization
from hornbook.errors import UserError
from hornbook.formats.filling import FLOATS, check_finite, report_unused
from hornbook.formats.weights import Stored
from hornbook.layers.model import LanguageModel
from hornbook.small_files import read_object

METHOD = "hornbook"
"""What `quant_method` in config.json is here."""


def spelled_quantization(how: Quantization) -> dict[str, Any]:
    """What config.json says under `quantization_config`."""
    return {"quant_method": METHOD} | dataclasses.asdict(how)


def read_quantization(folder: Path) -> Quantization | None:
    """How the model in a folder is quantised; None where it is not."""
    return parse_quantization(read_object(folder / "config.json"), str(folder / "config.json"))


def parse_quantization(spelled: Mapping[str, Any], path: str = "config.json") -> Quantization | None:
    """How the model that config.json describes is quantised, None where it is not; UserErrors begin with `path`."""
    stated = spelled.get("quantization_config")
    if not stated:
        return None
    if not isinstance(stated, dict) or stated.get("quant_method") != METHOD:
        raise UserError(f"{path}: quantised weights of this kind are not read here: take the original or a GGUF file")
    usual = dataclasses.asdict(Quantization())
    given = {key: value for key, value in stated.items() if key != "quant_method"}
    for key, value in given.items():
        if key not in usual:
            raise UserError(f"{path}: quantization_config has {key[:60]!r}, which this version does not know")
        if not fits(value, usual[key]):
            raise UserError(f"{path}: quantization_config has {key} {str(value)[:60]!r}, which is not possible")
    try:
        return Quantization(**given | {"keep": tuple(given.get("keep", ()))})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def fits(value: Any, usual: Any) -> bool:
    """Whether a value from JSON is of the type of a field."""
    if isinstance(usual, tuple):
        return isinstance(value, list) and len(value) <= 10_000 and all(isinstance(name, str) for name in value)
    return type(value) is type(usual) or (type(usual) is float and type(value) is int)


def coded_weights(model: LanguageModel, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a quantised model under our name: parts as they are, other numbers in `dtype`."""
    kept = part_names(model)
    for name, tensor in model.state_dict().items():
        yield name, (tensor if name in kept else tensor.to(dtype)).contiguous()


def match_coded(model: LanguageModel, weights: Mapping[str, Stored]) -> None:
    """UserError unless `weights` has all tensors of a quantised model, which may be on 'meta', in shape and format."""
    wanted, parts = model.state_dict(), part_names(model)
    if missing := [name for name in wanted if name not in weights]:
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise UserError(f"the weights lack the tensor '{missing[0]}'{more}, which config.json calls for")
    for name, tensor in wanted.items():
        stored, shape = weights[name], tuple(tensor.shape)
        if stored.shape != shape:
            raise UserError(f"the tensor '{name}' has shape {list(stored.shape)}; config.json calls for {list(shape)}")
        possible = (str(tensor.dtype).removeprefix("torch."),) if name in parts else FLOATS
        if stored.dtype not in possible:
            raise UserError(
                f"the tensor '{name}' holds numbers of type {stored.dtype}; possible are {', '.join(possible)}"
            )


@torch.no_grad()
def fill_coded(model: LanguageModel, weights: Mapping[str, Stored]) -> None:
    """Copy stored tensors into a quantised model, one at a time. UserError for one with NaN or infinite numbers."""
    state = model.state_dict()
    for name, tensor in state.items():
        found = weights[name].read()
        check_finite(name, found, infinite=False)
        tensor.copy_(found)
        del found  # before the next is read
    report_unused(sorted(set(weights) - set(state)))


def part_names(model: LanguageModel) -> set[str]:
    """The names of the tensors that matrices are kept as."""
    found = ((name, module) for name, module in model.named_modules() if isinstance(module, Quantized))
    return {f"{name}.{part}" for name, module in found for part in module.parts}
