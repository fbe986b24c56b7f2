"""What a checkpoint holds, written down, so that one that is torn or damaged is known before it is used.

    {"step": 500, "best": "000400", "log": 81920, "files": {"model.safetensors": {"bytes": ..., "sha256": "..."}, ...}}

`best` names the best checkpoint up to this one, `log` says how many bytes metrics.jsonl had. SHA-256 is what processors
have instructions for: 1.6 GB a second on one core of a Zen 5, where BLAKE2b makes 1.0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hornbook.errors import UserError
from hornbook.small_files import read_object

MANIFEST = "manifest.json"


def write_manifest(folder: Path, known: Mapping[str, dict[str, Any]] | None = None, **facts: Any) -> None:
    """List every file below `folder`, with `facts`, in its manifest.json; those in `known`, by their paths in it, as
    they are told of there. OSErrors pass through."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files = {name: (known or {}).get(name) or entry(path) for name, path in paths.items()}
    (folder / MANIFEST).write_text(json.dumps({**facts, "files": files}, indent=2) + "\n")


def entry(path: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"bytes": path.stat().st_size, "sha256": checksum(path)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """What it says; empty where there is none that can be read."""
    try:
        return read_object(folder / MANIFEST)
    except UserError:
        return {}


def checksum(path: Path) -> str:
    """SHA-256 of a file, streamed."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage(folder: Path) -> str:
    """What is wrong with a checkpoint, in a few words; nothing where every file is as it was written."""
    if not (folder / MANIFEST).exists():
        return f"it has no {MANIFEST}"
    manifest = read_manifest(folder)
    if not manifest.keys() >= {"step", "best", "log", "files"} or not isinstance(manifest["files"], dict):
        return f"its {MANIFEST} cannot be read"
    for name, told in manifest["files"].items():
        if why := difference(folder / name, told):
            return f"{name} {why}"
    return ""


def difference(path: Path, told: Any) -> str:
    """How a file differs from what is told of it."""
    if not path.is_file():
        return "is missing"
    try:
        if (size := path.stat().st_size) != told["bytes"]:
            return f"has {size:,} bytes instead of {told['bytes']:,}"
        return "" if checksum(path) == told["sha256"] else "does not have its checksum"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except (KeyError, TypeError, ValueError):
        return f"is not described in {MANIFEST}"
