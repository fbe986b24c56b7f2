"""PyTorch's own files of weights (`pytorch_model.bin`), which are pickles: tensors are taken out, nothing else is.

A pickle is a program. This is the only place where one is read, by PyTorch's restricted reader, which builds tensors
and plain containers and refuses whatever else the program calls for.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hornbook.errors import UserError

CALLED = re.compile(r"GLOBAL (\S+) (?:was not an allowed|whose module)|(\S+) must be \S+ to load")
"""How PyTorch tells which function or class a pickle asks for."""


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of PyTorch's, by name, on the CPU; UserError for anything else in it.

    The data of a file since PyTorch 1.6 (a zip archive) stay on the disk until they are used; an older file is read
    into memory as a whole.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that PyTorch did not write; they are refused
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a hostile program fails in any way that it likes
        raise UserError(f"cannot take the weights out of {path}: {reason(error)}; nothing in it was run") from None
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds a {type(found).__name__}, not tensors by name")
    for name, value in found.items():
        if fault := wrong(name, value):
            raise UserError(f"{path} must hold tensors by name and nothing else: {str(name)[:80]!r} {fault}")
    return dict(found)


def wrong(name: Any, value: Any) -> str:
    """Why an entry is not a plain tensor with all of its data in the file; empty where it is one."""
    if not isinstance(name, str):
        return f"is a {type(name).__name__}, not a name"
    if type(value) not in (Tensor, torch.nn.Parameter):
        return f"is a {type(value).__name__}"
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        return "is not a plain dense tensor"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"has shape {list(value.shape)}, more than the file has data for"
    return ""


def reason(error: Exception) -> str:
    """PyTorch's reason in few words: its advice to read the file without restrictions is left out."""
    text = str(error)
    if called := CALLED.search(text):
        return f"it holds more than tensors, it calls for {next(name for name in called.groups() if name)[:80]}"
    lines = [line.strip() for line in text.split("WeightsUnpickler error: ")[-1].splitlines() if line.strip()]
    return f"it holds more than tensors or is damaged ({lines[0][:120] if lines else type(error).__name__})"
