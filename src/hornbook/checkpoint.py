"""Models out of folders and files, and into Hugging Face model folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hornbook import machine
from hornbook.adapt.quantization import described, prepare, quantization_of, quantize, receiver
from hornbook.atomic import write_json
from hornbook.config import Quantization
from hornbook.errors import UserError, unknown
from hornbook.formats.coded import coded_weights, fill_coded, match_coded, read_quantization, spelled_quantization
from hornbook.formats.config_json import read_config, with_ends
from hornbook.formats.filling import build_empty, check_finite, fill, match
from hornbook.formats.huggingface import stored_weights, to_hf_config
from hornbook.formats.peft import put_on, refill, save_adapter
from hornbook.formats.peft_base import base_of, check_base, is_adapter
from hornbook.formats.sources import locate
from hornbook.formats.weights import INDEX, QUANTIZED, SAFETENSORS, open_weights, within
from hornbook.layers.model import LanguageModel
from hornbook.parallel.parts import MODEL, STATE, has_parts, parameters, read_parts, stored_parts
from hornbook.parallel.tensors import gathered, local
from hornbook.text.tokenizer_files import VOCABULARIES
from hornbook.text.tokenizers import Tokenizer, load_tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHARD = 5_000_000_000
"""Bytes above which weights are spread over several files."""
TOKENIZER_FILES = ("tokenizer.json", *VOCABULARIES)


def save_model(
    folder: Path,
    model: LanguageModel,
    tokenizer: Tokenizer | None,
    dtype: str = "float32",
    shard: int = SHARD,
    generation: Mapping[str, Any] | None = None,
    weights: bool = True,
) -> None:
    """Write a Hugging Face model folder: weights in `dtype`, in files of at most `shard` bytes.

    `generation` is what generation_config.json says beside the ids that the model states. Holds one shard's rounded or
    rearranged tensors beside the model. A model without a tokeniser is written without one. The integers and scales of
    a quantised model are written as they are, under our names, and nobody else can read them. Of a model with a LoRA
    adapter that is all which is written, as a PEFT folder that names its base. Without `weights`, all but them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    spelled = to_hf_config(config, dtype)
    if model.quantization is not None:
        spelled["quantization_config"] = spelled_quantization(model.quantization)
    write_json(folder / "config.json", spelled)
    ends = {key: spelled[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if spelled[key] is not None}
    write_json(folder / "generation_config.json", ends | dict(generation or {}))
    if weights and model.adapter is not None:
        save_adapter(folder, model, DTYPES[dtype])
    elif weights:
        save_weights(folder, model, DTYPES[dtype], shard)
    if tokenizer is not None:
        tokenizer.save(folder, config.context)


def consolidate(folder: Path) -> None:
    """Write the weights of a checkpoint that has them in parts as Hugging Face's too. Holds the model in memory.

    UserError where parts are missing or damaged; OSErrors pass through.
    """
    model = from_parts(folder, "cpu", torch.float32)
    save_weights(folder, model, torch.float32, SHARD)


def save_weights(folder: Path, model: LanguageModel, dtype: torch.dtype, limit: int) -> None:
    """Write the tensors to model.safetensors, or to shards of at most `limit` bytes (or one tensor) and an index.

    Those of a quantised model go to quantized.safetensors.
    """
    whole = SAFETENSORS if model.quantization is None else QUANTIZED
    stem = whole.removesuffix(".safetensors")
    shards: list[list[str]] = []
    tensors: dict[str, Tensor] = {}
    sizes: dict[str, int] = {}

    def flush() -> None:
        shards.append(list(tensors))
        save_file(tensors, folder / f"shard-{len(shards)}.part", {"format": "pt"})
        tensors.clear()

    for name, tensor in weights_to_store(model, dtype):
        if tensors and sum(sizes[other] for other in tensors) + tensor.nbytes > limit:
            flush()
        tensors[name], sizes[name] = tensor, tensor.nbytes
    flush()
    files = [f"{stem}-{k:05d}-of-{len(shards):05d}.safetensors" for k in range(1, len(shards) + 1)]
    files = files if len(shards) > 1 else [whole]
    for k, file in enumerate(files, start=1):
        os.replace(folder / f"shard-{k}.part", folder / file)
        shutil.copymode(folder / "config.json", folder / file)  # safetensors lets only the owner read what it writes
    if len(shards) > 1:
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}
        write_json(folder / f"{whole}{INDEX}", index)


def weights_to_store(model: LanguageModel, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Every tensor with its name in the file, one at a time."""
    if model.quantization is not None:
        yield from coded_weights(model, dtype)
        return
    for name, tensor in stored_weights(model):
        yield name, tensor.to(dtype) if tensor.is_floating_point() else tensor


def load(
    source: str | Path,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    text: bool = False,
    bits: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> LanguageModel:
    """The model of a run, a Hugging Face folder or a .gguf file, or one from the Hub: `gpt2`, `hf:owner/name@revision`.

    A LoRA adapter, ours or PEFT's, comes with the base that it names, on which it is put. Numbers become float32 where
    `dtype` says nothing. With `bits` (8 or 4) each matrix is quantised as soon as it is read, as `hornbook quantize`
    would with int8 or int4; the model in full is never held. Its tokeniser is `model.tokenizer`, which a folder without
    one leaves unset; with `text`, that is an error. Raises UserError where there is no such model, or it is damaged or
    of an unknown kind. `changes` are fields of a folder's config that are to be others, and change no weight: dropout.
    """
    path, device, number = locate(source), machine.check_device(str(device or "cpu")), number_type(dtype)
    how = quantization_of(bits)
    if path.is_file():
        from hornbook.formats.gguf import load_gguf

        model = load_gguf(path, device, number, how)
    else:
        model = load_folder(path, device, number, how, changes)
    if text and not hasattr(model, "tokenizer"):
        raise UserError(f"{source} came without a tokeniser: put its tokenizer.json into the folder to work with text")
    return model.eval()


def number_type(name: torch.dtype | str | None) -> torch.dtype:
    """The number format of a name; UserError for one that weights cannot have."""
    known = DTYPES | {dtype: dtype for dtype in DTYPES.values()}
    if name is not None and name not in known:
        raise unknown("number format", str(name), DTYPES)
    return torch.float32 if name is None else known[name]


def load_folder(
    folder: Path,
    device: torch.device | str,
    dtype: torch.dtype,
    how: Quantization | None = None,
    changes: Mapping[str, Any] | None = None,
) -> LanguageModel:
    """The model in a folder, quantised as it comes where `how` says so; memory for it is asked for when every name and
    shape is known to fit.

    Peak: the model and one tensor; for pickles from before PyTorch 1.6, the model and its file.
    """
    if is_adapter(folder):
        return load_adapted(folder, device, dtype, how, changes)
    config, kept = with_ends(read_config(folder), folder).replace(**changes or {}), read_quantization(folder)
    if kept is not None and how is not None:
        raise UserError(f"{folder} is quantised already ({described(kept)}): leave out bits")
    if only_parts(folder):
        model = from_parts(folder, device, dtype, changes)
        return with_tokenizer(model if how is None else quantize(model, how), folder)
    with open_weights(folder) if kept is None else open_weights(folder, (QUANTIZED,)) as weights:
        model = build_empty(config, len(weights)).to(dtype)
        if kept is not None:
            match_coded(prepare(model, kept), weights)
            fill_coded(model.to_empty(device=device), weights)
        else:
            plan, plain = match(model, weights), model
            if how is not None:
                model = prepare(build_empty(config).to(dtype), how)
            model = model.to_empty(device=device)
            fill(plain, weights, plan, receiver(model) if how is not None else None)
    return with_tokenizer(model, folder)


def from_parts(
    folder: Path, device: torch.device | str, dtype: torch.dtype, changes: Mapping[str, Any] | None = None
) -> LanguageModel:
    """The model of a checkpoint whose weights lie in parts. UserError where some are missing, damaged or links."""
    for path in (folder / STATE).iterdir():
        within(folder, f"{STATE}/{path.name}")
    tensors = sum(name.startswith(MODEL) for name in stored_parts(folder / STATE))
    model = build_empty(read_config(folder).replace(**changes or {}), tensors).to(dtype).to_empty(device=device)
    read_weights(folder, model)
    return model


def with_tokenizer(model: LanguageModel, folder: Path) -> LanguageModel:
    """The model, with the tokeniser of its folder where there is one."""
    if any((folder / name).is_file() for name in TOKENIZER_FILES):
        model.tokenizer = read_tokenizer(folder)
    return model


def load_adapted(
    folder: Path,
    device: torch.device | str,
    dtype: torch.dtype,
    how: Quantization | None,
    changes: Mapping[str, Any] | None,
) -> LanguageModel:
    """The base that an adapter's folder names, with the adapter on. UserError where the base is not what it was."""
    base = locate(base_of(folder))
    if is_adapter(base):
        raise UserError(f"{folder} is a LoRA adapter to {base}, which is one itself: export that first, merged")
    check_base(folder, base)
    return with_tokenizer(put_on(load_folder(base, device, dtype, how, changes), folder), folder)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokeniser of a folder."""
    return load_tokenizer(folder)


def only_parts(folder: Path) -> bool:
    """Whether a folder is a checkpoint with its weights in parts, and nowhere else."""
    return not any(folder.glob(f"{SAFETENSORS.removesuffix('.safetensors')}*")) and has_parts(folder)


def read_weights(folder: Path, model: LanguageModel) -> None:
    """Fill `model`, or its adapter, from a folder; UserError where weights are missing, damaged or do not fit.

    Where the model lies in parts every process must call; each reads its own from a folder that has parts too.
    """
    if has_parts(folder) and model.adapter is None:
        tensors = parameters(model)
        read_parts(folder / STATE, tensors)
        for name, tensor in tensors.items():
            check_finite(name, local(tensor), infinite=False)
        return
    with gathered(model, main=True, write=True):
        if model.adapter is not None:
            return refill(model, folder)
        with open_weights(folder) as weights:
            fill(model, weights, match(build_empty(model.config, len(weights)), weights))
