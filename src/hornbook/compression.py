"""`hornbook quantize`: a run as a smaller one, measured matrix by matrix and, on a text, as a whole."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hornbook import machine
from hornbook.adapt.layer_report import FAR, Layer, layer_of, outlying_columns
from hornbook.adapt.lora import merge
from hornbook.adapt.quantization import prepare, quantize, schemes
from hornbook.adapt.quantized import Quantized
from hornbook.atomic import refuse_existing, write_json
from hornbook.checkpoint import load, save_model
from hornbook.config import Evaluate, Quantization, Quantize
from hornbook.data.sources import open_source
from hornbook.errors import WorkError
from hornbook.evaluation.measure import measure, measure_encoder
from hornbook.exchange import answers, batch_size, delivered, difference, generation_settings
from hornbook.formats.coded import read_quantization
from hornbook.formats.config_json import read_config
from hornbook.formats.filling import build_empty
from hornbook.formats.peft_base import is_adapter
from hornbook.formats.sources import locate
from hornbook.layers.model import LanguageModel
from hornbook.progress import say
from hornbook.run import CHECKPOINTS

READ = 512
"""Tokens of a text that are read to count outliers among activations."""
REPORT = "quantize.json"


@dataclass(frozen=True)
class Compressed:
    """What came of it."""

    path: Path
    how: Quantization
    layers: list[Layer]
    bytes_before: int
    """Of all tensors, in float32."""
    bytes_after: int
    before: Mapping[str, Any]
    """Scores on the text, or the pseudo-perplexity of an encoder; empty without a text."""
    after: Mapping[str, Any]
    verified: str

    def summary(self) -> dict[str, Any]:
        """All of it, plain."""
        return dataclasses.asdict(self) | {"path": str(self.path)}


def quantize_run(settings: Quantize) -> Compressed:
    """Write a run with its matrices in few bits (fields of `config.Quantize`); it is read back and compared.

    Beside the model the folder has the report, as quantize.json. Peak memory: the model in float32, then what was made
    of it, twice. UserError for counted models, for what is quantised already, and where the folder exists.
    """
    how, place, target = settings.quantization, locate(settings.run), target_of(settings)
    refuse_existing(target)
    if place.is_dir() and not is_adapter(place):  # an adapter is merged, and its base made whole, before
        check_folder(place, how)
    model = merge(load(place, settings.device or machine.pick_device(), text=settings.data is not None))
    columns, before, size = found_columns(model, settings), scored(model, settings), bytes_of(model)
    layers: list[Layer] = []

    def look(name: str, weight: Tensor, after: Quantized) -> None:
        layers.append(dataclasses.replace(layer_of(name, weight, after), columns=columns.get(name)))

    quantize(model, how, look)
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        say("the matrices of recurrent layers stay in full: only embedding, head and attention are quantised")
    after = scored(model, settings)
    model.cpu()
    with delivered(target) as aside:
        save_model(aside, model, getattr(model, "tokenizer", None), generation=generation_settings(place))
        verified = compared(model, load(aside))
        found = Compressed(target, how, layers, size, bytes_of(model), before, after, verified)
        write_json(aside / REPORT, found.summary())
    return found


def target_of(settings: Quantize) -> Path:
    """The folder to write: beside the run where none is named (of one of its checkpoints too), in runs/ for a name of
    the Hub."""
    if settings.out is not None:
        return Path(settings.out).expanduser()
    path = Path(settings.run).expanduser()
    if not path.exists():
        return Path("runs") / f"{settings.run.removeprefix('hf:').split('/')[-1].split('@')[0]}-{settings.kind}"
    path = path.resolve() if path.name in ("", "..") else path
    whole = Path(os.path.abspath(path))
    if whole.parent.name == CHECKPOINTS and (whole.parents[1] / "train.json").exists():  # which deletes what is old
        run = whole.parents[1].resolve()
        path = run.with_name(f"{run.name}-{whole.name}")
    return path.with_name(f"{path.stem if path.is_file() else path.name}-{settings.kind}")


def check_folder(folder: Path, how: Quantization) -> None:
    """UserError for a folder whose model cannot be quantised so, before its weights are read."""
    model, kept = build_empty(read_config(folder)), read_quantization(folder)
    schemes(model if kept is None else prepare(model, kept), how)


def scored(model: LanguageModel, settings: Quantize) -> dict[str, Any]:
    """The model's figures on the text that is asked for."""
    if settings.data is None:
        return {}
    names = ("split", "column", "context", "stride", "batch", "limit")
    evaluate = Evaluate(settings.run, settings.data, **{name: getattr(settings, name) for name in names})
    if not model.causal:
        return {"pseudo_perplexity": measure_encoder(evaluate, model)}
    figures = measure(evaluate, model).summary()
    return {name: figure for name, figure in figures.items() if not name.startswith("document_")}


def found_columns(model: LanguageModel, settings: Quantize) -> Mapping[str, int]:
    """Columns with outliers in the input of each matrix, over the beginning of the text that is asked for."""
    if settings.data is None or model.counted:
        return {}
    shard = open_source(settings.data, settings.column).shard(settings.split, model.tokenizer)
    tokens = torch.from_numpy(shard.tokens[: min(READ, model.config.context)].astype("int64"))[None]
    return outlying_columns(model, tokens.to(model.device), settings.outliers or FAR)


def bytes_of(model: LanguageModel) -> int:
    """What all tensors take."""
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def compared(model: LanguageModel, again: LanguageModel) -> str:
    """How the copy agrees; WorkError where it is not the same bit for bit."""
    ours, theirs = model.state_dict(), again.state_dict()
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[name], theirs[name]) for name in ours):
        raise WorkError("what was written did not come back the same: nothing was kept")
    logits = answers(model)
    if apart := difference(logits, answers(again)):
        raise WorkError(f"what was written gives other logits, by {apart:.3g}: nothing was kept")
    return f"every tensor and {batch_size(logits)} bit-identical"
