"""A run folder in and out.

    runs/x/train.json               the settings, resolved
    runs/x/metrics.jsonl            one line a measurement
    runs/x/checkpoints/000500/      a whole Hugging Face model folder, and state/ to resume from
    runs/x/last, runs/x/best        links to checkpoints
    runs/x/config.json ...          links into `best`, so that the run itself is a model folder

A checkpoint is written aside, synced and renamed in one step: it is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hornbook import machine
from hornbook.atomic import sync, written_aside
from hornbook.errors import UserError, unknown
from hornbook.formats.config_json import read_config
from hornbook.formats.filling import build_empty, fill, match
from hornbook.formats.huggingface import stored_weights, to_hf_config
from hornbook.formats.sources import locate
from hornbook.formats.weights import INDEX, SAFETENSORS, open_weights
from hornbook.layers.model import LanguageModel
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
) -> None:
    """Write a Hugging Face model folder: weights in `dtype`, in files of at most `shard` bytes.

    `generation` is what generation_config.json says beside the ids that the model states. Holds one shard's rounded or
    rearranged tensors beside the model. A model without a tokeniser is written without one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    write_json(folder / "config.json", to_hf_config(config, dtype))
    eos = [config.eos, *config.stops] if config.stops else config.eos
    ends = {"bos_token_id": config.bos, "eos_token_id": eos, "pad_token_id": config.pad}
    write_json(
        folder / "generation_config.json",
        {key: value for key, value in ends.items() if value is not None} | dict(generation or {}),
    )
    save_weights(folder, model, DTYPES[dtype], shard)
    if tokenizer is not None:
        tokenizer.save(folder, config.context)


def save_weights(folder: Path, model: LanguageModel, dtype: torch.dtype, limit: int) -> None:
    """Write the tensors to model.safetensors, or to shards of at most `limit` bytes (or one tensor) and an index."""
    shards: list[list[str]] = []
    tensors: dict[str, Tensor] = {}
    sizes: dict[str, int] = {}

    def flush() -> None:
        shards.append(list(tensors))
        save_file(tensors, folder / f"shard-{len(shards)}.part", {"format": "pt"})
        tensors.clear()

    for name, tensor in stored_weights(model):
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
        if tensors and sum(sizes[other] for other in tensors) + tensor.nbytes > limit:
            flush()
        tensors[name], sizes[name] = tensor, tensor.nbytes
    flush()
    files = [f"model-{k:05d}-of-{len(shards):05d}.safetensors" for k in range(1, len(shards) + 1)]
    files = files if len(shards) > 1 else [SAFETENSORS]
    for k, file in enumerate(files, start=1):
        os.replace(folder / f"shard-{k}.part", folder / file)
        shutil.copymode(folder / "config.json", folder / file)  # safetensors lets only the owner read what it writes
    if len(shards) > 1:
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}
        write_json(folder / f"{SAFETENSORS}{INDEX}", index)


def load(
    source: str | Path,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    text: bool = False,
) -> LanguageModel:
    """The model of a run, a Hugging Face folder or a .gguf file, or one from the Hub: `gpt2`, `hf:owner/name@revision`.

    Its numbers become float32 where `dtype` says nothing. Its tokeniser is `model.tokenizer`, which a folder without
    one leaves unset; with `text`, that is an error. Raises UserError where there is no such model, or it is damaged or
    of an unknown kind.
    """
    path, device, number = locate(source), machine.check_device(str(device or "cpu")), number_type(dtype)
    if path.is_file():
        from hornbook.formats.gguf import load_gguf

        model = load_gguf(path, device, number)
    else:
        model = load_folder(path, device, number)
    if text and not hasattr(model, "tokenizer"):
        raise UserError(f"{source} came without a tokeniser: put its tokenizer.json into the folder to work with text")
    return model.eval()


def number_type(name: torch.dtype | str | None) -> torch.dtype:
    """The number format of a name; UserError for one that weights cannot have."""
    known = DTYPES | {dtype: dtype for dtype in DTYPES.values()}
    if name is not None and name not in known:
        raise unknown("number format", str(name), DTYPES)
    return torch.float32 if name is None else known[name]


def load_folder(folder: Path, device: torch.device | str, dtype: torch.dtype) -> LanguageModel:
    """The model in a folder; memory for it is asked for when every name and shape is known to fit.

    Peak: the model and one tensor; for pickles from before PyTorch 1.6, the model and its file.
    """
    config = read_config(folder)
    with open_weights(folder) as weights:
        model = build_empty(config, len(weights)).to(dtype)
        plan = match(model, weights)
        model = model.to_empty(device=device)
        fill(model, weights, plan)
    if any((folder / name).is_file() for name in TOKENIZER_FILES):
        model.tokenizer = read_tokenizer(folder)
    return model


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokeniser of a folder that is not trusted."""
    try:
        return load_tokenizer(folder)
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file brings the library to
        raise UserError(f"cannot read the tokeniser in {folder}: {type(error).__name__}, {str(error)[:120]}") from None


def read_weights(folder: Path, model: LanguageModel) -> None:
    """Fill `model` from the weights in a folder; UserError where they are missing, damaged or do not fit."""
    with open_weights(folder) as weights:
        fill(model, weights, match(build_empty(model.config, len(weights)), weights))


class Run:
    """The folder that one training run owns."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.checkpoints = self.folder / "checkpoints"
        self.metrics = self.folder / "metrics.jsonl"

    def settings(self) -> dict[str, Any]:
        """The settings of the run that is here; empty where there is none, or none that came to a checkpoint."""
        return read_json(self.folder / "train.json") if (self.folder / "last").exists() else {}

    def begin(self, settings: dict[str, Any], changeable: tuple[str, ...] = ()) -> None:
        """Claim the folder for `settings`, or find a run of the same settings there to carry on.

        Raises UserError where it holds a run of other settings, or something that is no run.
        """
        path = self.folder / "train.json"
        if old := self.settings():
            differ = [k for k in settings if k not in changeable and old.get(k) != json.loads(json.dumps(settings[k]))]
            if differ:
                what = ", ".join(f"{k} was {old.get(k)!r} and is now {settings[k]!r}" for k in differ[:3])
                raise UserError(f"{self.folder} holds a run of other settings ({what}): choose another --out")
            return
        if self.folder.is_file() or (self.folder.is_dir() and any(self.folder.iterdir()) and not path.exists()):
            raise UserError(f"{self.folder} exists and is not a run: choose another --out")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, settings)
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}") from error

    def save(
        self,
        step: int,
        model: LanguageModel,
        tokenizer: Tokenizer,
        tensors: dict[str, Tensor],
        facts: dict[str, Any],
        best: bool,
    ) -> None:
        """Write the checkpoint of `step` (with `tensors` and `facts` to resume from) and point `last`, `best` to it."""
        target = self.checkpoints / f"{step:06d}"
        aside = self.checkpoints / f".{step:06d}.part"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            save_model(aside, model, tokenizer)
            (aside / "state").mkdir()
            save_file({name: t.contiguous() for name, t in tensors.items()}, aside / "state" / "state.safetensors")
            write_json(aside / "state" / "state.json", facts)
            sync(aside)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise UserError(
                f"could not write a checkpoint to {self.folder} ({error}); the last one is whole"
            ) from error
        if target.exists():
            shutil.rmtree(target)
        os.rename(aside, target)
        self.point("last", target)
        if best or not (self.folder / "best").exists():
            self.point("best", target)
            for name in sorted(path.name for path in target.iterdir() if path.is_file()):
                if not (self.folder / name).is_symlink():
                    (self.folder / name).symlink_to(Path("best") / name)
        self.prune()

    def point(self, name: str, target: Path) -> None:
        """Make the link `name` point to `target`, in one step."""
        aside = self.folder / f".{name}.part"
        aside.unlink(missing_ok=True)
        aside.symlink_to(target.relative_to(self.folder))
        os.replace(aside, self.folder / name)

    def prune(self) -> None:
        """Delete all checkpoints but `last` and `best`, and leftovers of interrupted writing."""
        kept = {(self.folder / name).resolve() for name in ("last", "best")}
        for folder in self.checkpoints.iterdir():
            if folder.is_dir() and folder.resolve() not in kept:
                shutil.rmtree(folder)

    def restore(self, model: LanguageModel) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Fill `model` from the last checkpoint and return what else it holds; None where there is none."""
        last = self.folder / "last"
        if not last.exists():
            return None
        read_weights(last, model)
        path = last / "state" / "state.safetensors"
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError) as error:
            raise UserError(f"cannot carry on: {path} is damaged ({error})") from error
        return tensors, read_json(last / "state" / "state.json")

    def restore_best(self, model: LanguageModel) -> None:
        """Fill `model` from the best checkpoint."""
        read_weights(self.folder / "best", model)

    def log(self, **values: Any) -> None:
        """Append one line to metrics.jsonl."""
        try:
            with open(self.metrics, "a") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise UserError(f"cannot write to {self.metrics}: {error.strerror}") from error

    def cut_log(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the lines of metrics.jsonl that `keep` refuses: what was measured after the checkpoint resumed from."""
        lines = [line for line in read_log(self.folder) if keep(line)]
        with written_aside(self.metrics) as aside:
            aside.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a torn last line is left out."""
    path, lines = Path(folder) / "metrics.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path.parent} is no run or model folder: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write one JSON file, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(value, indent=2) + "\n")
