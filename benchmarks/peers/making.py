"""The models that the generators read, made by Hornbook: folders that transformers reads too, and GGUF files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hornbook import models
from hornbook.atomic import folder_written_aside
from hornbook.checkpoint import load, save_model
from hornbook.config import ModelConfig
from hornbook.formats.gguf import save_gguf
from hornbook.formats.gguf_file import GGUFFile
from hornbook.text.tokenizer_training import train_tokenizer

Ask = Callable[[str, Path], dict[str, Any]]
"""What a process answers, by the generator's name and what it reads."""


def shape(name: str, **sizes: int) -> ModelConfig:
    return models.find_size(name).replace(bos=None, eos=None, context=1024, **sizes)


SHAPES = {
    "gpt2": shape("gpt2"),
    "llama": shape("llama-tiny", dim=768, layers=12, heads=12, kv_heads=12, mlp=2048, vocab=32000),
    "tiny": shape("llama-tiny", dim=64, layers=2, mlp=128, vocab=512),
}
"""GPT-2 with 124 million parameters; a Llama with 110 (its head tied); the last one is for trying out."""


def model_folder(out: Path, name: str) -> Path:
    """The folder of a shape's model, made first where it is missing."""
    folder = out / name
    if not folder.exists():
        torch.manual_seed(0)
        with folder_written_aside(folder) as aside:
            save_model(aside, models.build(SHAPES[name]).bfloat16(), None, "bfloat16")
    return folder


def gguf_path(folder: Path, kind: str) -> Path:
    return folder.with_name(f"{folder.name}-{kind}.gguf")


def make_gguf(folder: Path, kind: str, ask: Ask) -> dict[str, Any]:
    """Write a model's GGUF file where it is missing, blocks by llama.cpp's own quantiser; what that says."""
    path = gguf_path(folder, kind)
    if path.exists():
        return {}
    if kind not in ("BF16", "F16"):
        return make_gguf(folder, "BF16", ask) | ask(f"quantize-{kind}", gguf_path(folder, "BF16"))
    save_gguf(path, load(folder), train_tokenizer("bytes", []), kind)
    return {}


def gguf_weights(path: Path) -> int:
    """Bytes that are read for a token: all but tables of which a row is looked up."""
    tensors = GGUFFile(path).tensors
    looked_up = {"position_embd.weight"} | ({"token_embd.weight"} if "output.weight" in tensors else set())
    return sum(info.size for name, info in tensors.items() if name not in looked_up)
