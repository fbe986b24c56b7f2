"""Models in and out: any source to a folder of ours, any model to other programs' files. Each is verified on arrival.

Verified means: what was written is read back in the same command, and its tensors and its logits on a fixed batch are
compared, before it takes its name. What does not pass is not left behind.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from hornbook.adapt.lora import merge
from hornbook.adapt.quantization import dequantize
from hornbook.atomic import folder_written_aside, refuse_existing, written_aside
from hornbook.checkpoint import DTYPES, load, save_model
from hornbook.config import Export, Import
from hornbook.errors import PassingError, UserError, WorkError
from hornbook.formats.arpa import LN10, ZERO, read_arpa, spelled, write_arpa
from hornbook.formats.config_json import read_config
from hornbook.formats.filling import build_empty
from hornbook.formats.gguf import gguf_table, load_gguf, save_gguf
from hornbook.formats.gguf_types import LARGEST_HALF, block_formats
from hornbook.formats.peft_base import described_by
from hornbook.formats.sources import locate
from hornbook.layers.model import LanguageModel
from hornbook.models.ngram import NGram
from hornbook.small_files import read_object
from hornbook.text.byte_alphabet import spell

FLOATS = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
"""Number formats of a Hugging Face folder, by their short names."""
BLOCKS = ("q8_0", "q4_0")
"""Further ones of GGUF: 32 numbers share a scale."""
NO_FOLDER = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".json")
"""Endings by which nobody means a folder."""

ARPA_CLOSE = 1e-4
"""Nats. A number of at most 228 nats (log10 of -99) has 9 digits in the file, 1e-9 of it, and 24 bits here, 6e-8 of it:
2e-5; up to 7 of them are added."""


class Arrival(NamedTuple):
    """What came of an import or an export."""

    model: str
    """Family, parameters, tokeniser, context, in a line."""
    verified: str
    """What was compared, and how closely it agreed, in a line."""
    path: Path


def import_model(settings: Import) -> Arrival:
    """Write any source as a model folder of ours (fields of `config.Import`), a LoRA adapter merged into its base.
    UserError where that cannot be.

    Peak memory: the model and, while it is written, one shard's rearranged tensors.
    """
    target = Path(settings.run).expanduser()
    refuse_existing(target)
    place = locate(settings.source)
    model = merge(load(place, dtype=settings.dtype))
    told, before = described(model), answers(model)
    with delivered(target) as aside:
        tokenizer = getattr(model, "tokenizer", None)
        save_model(aside, model, tokenizer, settings.dtype, generation=generation_settings(place))
        del model
        apart = difference(before, answers(load(aside, dtype=settings.dtype)))
        if apart:
            raise WorkError(f"{settings.source} did not arrive whole: logits differ by {apart:.3g}; nothing was kept")
    return Arrival(told, f"verified on arrival: {batch_size(before)} bit-identical to the source's", target)


def export_model(settings: Export) -> Arrival:
    """Write a model in another program's form (fields of `config.Export`). UserError where that cannot be.

    A quantised model is written in full numbers, those that its integers stand for, and a LoRA adapter merged. Peak
    memory: the model, what is read back of it, and one shard's or one tensor's rounded numbers.
    """
    target = Path(settings.target).expanduser()
    form = settings.format or {".gguf": "gguf", ".arpa": "arpa"}.get(target.suffix, "hf")
    kind = settings.type or {"hf": "f32", "gguf": "f16", "arpa": "f32"}[form]
    if form == "hf" and kind not in FLOATS:
        raise UserError(f"a Hugging Face folder takes f32, bf16 or f16; for {kind} let the target end in .gguf")
    if form == "arpa" and settings.type:
        raise UserError(f"an ARPA file holds decimal numbers, of which there is one kind: leave out --type {kind}")
    if form != "hf" and settings.shard_size != Export.shard_size:
        raise UserError(f"--shard-size spreads the weights of a folder; {target} is one file")
    if form == "hf" and not settings.format and target.suffix in NO_FOLDER:
        raise UserError(f"{target} is no file that can be written alone: possible are a folder, x.gguf and x.arpa")
    refuse_existing(target, folder=form == "hf")
    place = locate(settings.run)
    if place.is_dir() and form != "hf":
        CHECKS[form](build_empty(read_config(described_by(place))))  # before the weights are read
    model = dequantize(merge(load(place, text=form != "hf")))
    if form == "hf":
        verified = to_folder(model, target, kind, int(settings.shard_size * 1e9), generation_settings(place))
    else:
        verified = to_gguf(model, target, kind) if form == "gguf" else to_arpa(model, target)
    return Arrival(described(model), f"verified on arrival: {verified}", target)


def to_folder(model: LanguageModel, target: Path, kind: str, shard: int, generation: dict[str, Any]) -> str:
    """Write a Hugging Face folder; says how it compares."""
    dtype = DTYPES[FLOATS[kind]]
    if kind == "f16":
        refuse_overflow(model)
    with delivered(target) as aside:
        save_model(aside, model, getattr(model, "tokenizer", None), FLOATS[kind], shard, generation)
        return compared(model, load(aside), kind, lambda tensor: iter([rounded_to(dtype, tensor)]))


def rounded_to(dtype: torch.dtype, tensor: Tensor) -> Tensor:
    """What a folder of `dtype` makes of a tensor: integers (the keys of n-grams) stay as they are."""
    return tensor.to(dtype).to(tensor.dtype) if tensor.is_floating_point() else tensor


def to_gguf(model: LanguageModel, target: Path, kind: str) -> str:
    """Write a GGUF file for llama.cpp; says how it compares."""
    shifted = bool(gguf_table(model).get("norm_plus_one"))
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
        path = Path(aside) / target.name  # the file's name is written into it
        save_gguf(path, model, model.tokenizer, kind.upper())
        told = compared(model, load_gguf(path), kind, lambda tensor: roundings(tensor, kind, shifted))
        refuse_existing(target, folder=False)
        os.replace(path, target)
        return told


def to_arpa(model: LanguageModel, target: Path) -> str:
    """Write an ARPA file, white space in its words spelled as GPT-2 does (Ġ); says how it compares."""
    check_ngram(model)
    assert isinstance(model, NGram)
    ids = range(model.config.vocab)
    words = [spelled_out(model.tokenizer.core.id_to_token(id) or f"<{id}>") for id in ids]
    with torch.inference_mode(), written_aside(target) as aside:
        write_arpa(model, aside, words)
        again, read = read_arpa(aside)
        places = {word: place for place, word in enumerate(read)}
        kept = [(id, places[word]) for id, word in zip(ids, spelled(model, words), strict=False) if word in places]
        ours, theirs = torch.tensor(kept).T
        tokens = ours[torch.randint(len(ours), (2, 32), generator=torch.Generator().manual_seed(0))]
        same = torch.empty(model.config.vocab, dtype=torch.int64).index_copy_(0, ours, theirs)
        floor = ZERO * LN10
        before, after = model(tokens)[..., ours].clamp(min=floor), again(same[tokens])[..., theirs].clamp(min=floor)
        if not (apart := difference(before, after)) <= ARPA_CLOSE:
            raise WorkError(f"{target} did not arrive whole: log-probabilities differ by {apart:.3g}; it was not kept")
        return f"{batch_size(before)} within {apart:.1g} nats, the file's rounding"


def check_ngram(model: LanguageModel) -> None:
    if not isinstance(model, NGram):
        raise UserError(f"an ARPA file holds n-grams, not a model of the family {model.config.family}: use a folder")


CHECKS: dict[str, Callable[[LanguageModel], Any]] = {"gguf": gguf_table, "arpa": check_ngram}
"""Whether a form can hold a model; it may be on 'meta'."""


def spelled_out(token: str) -> str:
    """A token without white space."""
    return "".join(spell(char.encode()) if char in " \t\n\r\0" else char for char in token)


def compared(
    model: LanguageModel, again: LanguageModel, kind: str, expected: Callable[[Tensor], Iterator[Tensor]]
) -> str:
    """How a copy agrees. WorkError where a tensor is none of those that are `expected` of it, or where all tensors are
    the same and logits are not."""
    written, exact = again.state_dict(), True
    for name, tensor in model.state_dict().items():
        if not any(torch.equal(written[name], rounded) for rounded in expected(tensor)):
            raise WorkError(f"the tensor '{name}' did not arrive as {kind} rounds it: nothing was kept")
        exact = exact and torch.equal(written[name], tensor)
    before = answers(model, min(32, again.config.context))  # GGUF has the window, where there is one, as its context
    apart = difference(before, answers(again))
    if exact and apart:
        raise WorkError(f"the copy is not whole: its logits differ by {apart:.3g}; nothing was kept")
    if exact:
        return f"every tensor and {batch_size(before)} bit-identical"
    spread = float(before[before.isfinite()].std())
    return f"every tensor as {kind} rounds it, {batch_size(before)} within {apart:.3g} (they spread by {spread:.3g})"


def roundings(tensor: Tensor, kind: str, shifted: bool) -> Iterator[Tensor]:
    """What a GGUF file of `kind` may make of a tensor: itself, or rounded; in blocks only where rows are whole ones.

    `shifted`: vectors may have been stored with a 1 added (Gemma's norms).
    """
    yield tensor
    if shifted and tensor.ndim == 1:
        yield tensor + 1 - 1
    if kind == "f32":
        return
    yield tensor.to(torch.bfloat16 if kind == "bf16" else torch.float16).to(tensor.dtype)
    if kind in BLOCKS and tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
        for finer in dict.fromkeys((kind, "q8_0")):  # the head of a q4_0 file is q8_0
            package, number = block_formats(finer.upper())
            yield torch.from_numpy(package.dequantize(package.quantize(tensor.numpy(), number), number))


def refuse_overflow(model: LanguageModel) -> None:
    """UserError where a number is too large for float16."""
    for name, tensor in model.state_dict().items():
        numbers = tensor[tensor.isfinite()].abs() if tensor.is_floating_point() else tensor[:0]
        if numbers.numel() and float(numbers.amax()) > LARGEST_HALF:
            raise UserError(f"the tensor '{name}' holds numbers above f16's {LARGEST_HALF:,.0f}: choose --type bf16")


@contextmanager
def delivered(target: Path) -> Iterator[Path]:
    """A folder aside that takes its name at the end; PassingError, and nothing left, where a disk does not hold it."""
    try:
        with folder_written_aside(target) as aside:
            yield aside
    except (OSError, SafetensorError) as error:
        raise PassingError(f"could not write {target} ({error}): nothing was left there") from error


@torch.inference_mode()
def answers(model: LanguageModel, width: int = 32) -> Tensor:
    """Logits (2, `width` or the context, V) of a fixed batch; hidden states of an encoder that has no head."""
    c = model.config
    tokens = torch.randint(c.vocab, (2, min(width, c.context)), generator=torch.Generator().manual_seed(0))
    hidden = model.hidden(tokens)
    try:
        return model.head(hidden)
    except UserError:
        return hidden


def difference(before: Tensor, after: Tensor) -> float:
    """The largest absolute difference; 0 only where every number is the same (or NaN in both)."""
    if before.shape != after.shape:
        return float("inf")
    same = (before == after) | (before.isnan() & after.isnan())
    return float(torch.where(same, 0.0, (before.float() - after.float()).abs().nan_to_num(nan=float("inf"))).max())


def batch_size(logits: Tensor) -> str:
    return f"logits of {logits.shape[0]} x {logits.shape[1]} tokens"


def described(model: LanguageModel) -> str:
    """Family, parameters, tokeniser and context, in a line."""
    c, tokenizer = model.config, getattr(model, "tokenizer", None)
    told = f"{c.family}, {model.parameter_count():,} parameters, context {c.context:,}, "
    if tokenizer is None:
        return f"{told}no tokeniser (without one it takes ids only)"
    told += f"{tokenizer.kind} tokeniser of {tokenizer.vocab:,} ids"
    return told if tokenizer.vocab <= c.vocab else f"{told}, more than the model's {c.vocab:,}: they do not belong"


def generation_settings(place: Path) -> dict[str, Any]:
    """What a folder's generation_config.json says in plain values: end tokens may be more than the one that we keep."""
    if not (place / "generation_config.json").is_file():
        return {}
    kept = read_object(place / "generation_config.json").items()
    plain = (bool, int, float, str)
    return {
        key: value
        for key, value in kept
        if key not in ("_from_model_config", "transformers_version")
        and (isinstance(value, plain) or (isinstance(value, list) and all(type(x) is int for x in value)))
    }
