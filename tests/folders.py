"""Model folders for the tests of import, export and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers import tiny_model
from hornbook import checkpoint
from hornbook.layers.model import LanguageModel
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.text.tokenizers import Tokenizer

TOKENIZER: Tokenizer = train_tokenizer("bytes", [])


def speaking(family: str = "gpt2", **changes: Any) -> LanguageModel:
    """A tiny random model with the vocabulary and the special ids of a tokeniser of bytes."""
    t = TOKENIZER
    return tiny_model(family, **{"vocab": t.vocab, "bos": t.bos, "eos": t.eos, "pad": t.pad} | changes)


def folder_of(model: LanguageModel, folder: Path, tokenizer: Tokenizer | None = TOKENIZER) -> Path:
    checkpoint.save_model(folder, model, tokenizer)
    return folder


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def store(folder: Path, tensors: dict[str, Tensor], form: str = "safetensors") -> None:
    """Put `tensors` into a folder instead of its weights, in one of the forms in which folders of the Hub have them."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    names = sorted(tensors)
    if form == "safetensors":
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    elif form in ("pickle", "old pickle"):
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=form == "pickle")
    else:
        whole = "model.safetensors" if "safetensors" in form else "pytorch_model.bin"
        stem, end = whole.split(".")
        places = {}
        for number, part in enumerate((names[::2], names[1::2]), start=1):
            shard = f"{stem}-{number:05d}-of-00002.{end}"
            content = {name: tensors[name] for name in part}
            save_file(content, folder / shard) if end == "safetensors" else torch.save(content, folder / shard)
            places |= dict.fromkeys(part, shard)
        (folder / f"{whole}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


FORMS = ("safetensors", "sharded safetensors", "pickle", "sharded pickle", "old pickle")


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; ... removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def same(one: LanguageModel, other: LanguageModel) -> bool:
    """Whether two models hold the same numbers, bit for bit."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
