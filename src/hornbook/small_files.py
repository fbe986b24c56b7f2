"""Settings and tokenisers as files, from folders that are not trusted: only ordinary files of a believable size are
read, so that a link to /dev/zero, or a pipe, costs neither memory nor time."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from hornbook.errors import UserError

LARGEST = 1 << 27
"""Bytes; the index of a model of 70 billion parameters has 70,000, the largest tokenizer.json about 35 million."""


def read_bytes(path: Path) -> bytes:
    """What a file holds. UserError for one that is no ordinary file, that is too large or cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is no ordinary file: put the file itself there")
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)  # the system's own files say that they have 0 bytes
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:  # a name that no file can have
        raise UserError(f"cannot read {path}: {error}") from None
    if len(content) > LARGEST:
        raise UserError(f"{path} has more than {LARGEST:,} bytes: no such file is that large")
    return content


def read_text(path: Path) -> str:
    """The same in UTF-8, with any line ends made `\\n`."""
    try:
        text = read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: {error}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; a UserError for anything else."""
    if not os.path.exists(path):
        ggufs = sorted(file.name for file in path.parent.glob("*.gguf"))
        hint = f"; name the file itself: {path.parent / ggufs[0]}" if ggufs else ""
        raise UserError(f"{path.parent} is no run or model folder: it has no {path.name}{hint}")
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: it is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a JSON {type(content).__name__}, not an object")
    return content
