"""The model that an adapter changes: how its folder is named, found again, and known to be what it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hornbook.errors import UserError, visible
from hornbook.formats.sources import HUB_NAME, locate
from hornbook.formats.weights import INDEX, PICKLE, QUANTIZED, SAFETENSORS, shard_path, weight_map, within
from hornbook.manifest import checksum
from hornbook.parallel.parts import STATE, has_parts
from hornbook.small_files import read_object

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
OURS = "hornbook.json"
"""What PEFT's file has no place for: the base as seen from here, its hash, our names of what is adapted."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter instead of a model."""
    return (folder / CONFIG).is_file()


def notes(folder: Path) -> dict[str, Any]:
    """Our own file in the folder of an adapter; empty for one of PEFT's."""
    return read_object(folder / OURS) if (folder / OURS).is_file() else {}


def as_seen_from(folder: Path, base: str) -> str:
    """How a folder names its base: a path from here where both lie in one folder, so that they can move together."""
    if not base or HUB_NAME.fullmatch(base):
        return base
    path, place = Path(base).resolve(), folder.resolve()
    near = path.parent in place.parents and path.parent != Path(path.anchor)
    return Path(os.path.relpath(path, place)).as_posix() if near else str(path)


def base_of(folder: Path) -> str:
    """The model that the adapter in a folder changes: a path, or hf:owner/name. UserError where it is not there."""
    ours, stated = notes(folder).get("base"), read_object(folder / CONFIG)
    theirs = stated.get("base_model_name_or_path")
    places: list[Path] = []
    for told in (ours, theirs):
        if not isinstance(told, str) or not told:
            continue
        if told.startswith("hf:"):
            return told
        start = (folder / OURS).resolve().parent if told is ours else Path()
        places.append(Path(os.path.normpath(start / Path(told).expanduser())))
        if is_adapter(places[-1]):
            raise UserError(f"{folder} is a LoRA adapter to {told}, which is one itself: export that first, merged")
        if places[-1].is_dir():
            return str(places[-1])
    if not places:
        raise UserError(f"{folder / CONFIG} names no base_model_name_or_path: put the path of the base there")
    if name := on_the_hub(str(theirs), stated):
        return name
    raise UserError(
        f"{folder} is a LoRA adapter, and the model that it changes is not there ({visible(str(places[0]))}): bring it "
        f"back, or name its place in {folder / (OURS if ours else CONFIG)}"
    )


def on_the_hub(told: str, stated: Mapping[str, Any]) -> str:
    """hf:owner/name for what could be a name of the Hub's, else nothing."""
    revision = stated.get("revision")
    name = f"hf:{told}{f'@{revision}' if isinstance(revision, str) else ''}"
    return name if HUB_NAME.fullmatch(name) and told[0].isalnum() and not told.startswith("runs/") else ""


def described_by(folder: Path) -> Path:
    """The folder whose config.json describes the model here: an adapter of PEFT's has none, but its base."""
    if not is_adapter(folder) or (folder / "config.json").is_file():
        return folder
    return locate(base_of(folder))


def check_base(folder: Path, base: Path) -> None:
    """UserError where the base is not what the adapter in `folder` was trained on, as far as that is known."""
    known = notes(folder).get("base_sha256")
    if known and weights_hash(base) != known:
        raise UserError(
            f"the weights of {base} have changed since {folder} was trained on them (their sha256 was "
            f"{visible(str(known)[:12])}...): bring those back, or train the adapter anew"
        )


def weights_hash(folder: Path) -> str:
    """SHA-256 of a folder's weights, or its adapter; of shards, of their hashes one after the other. UserError where
    there are none."""
    for name in (SAFETENSORS, PICKLE, QUANTIZED, WEIGHTS, PICKLED):
        if (folder / name).is_file():
            return checksum(folder / name)
        if (folder / f"{name}{INDEX}").is_file():
            shards = sorted(set(weight_map(folder / f"{name}{INDEX}").values()))
            kind, index = Path(name).suffix, f"{name}{INDEX}"
            paths = [shard_path(folder, shard, kind, index) for shard in shards]
            return hashlib.sha256("".join(map(checksum, paths)).encode()).hexdigest()
    if has_parts(folder):
        parts = [within(folder, f"{STATE}/{path.name}") for path in sorted((folder / STATE).glob("*.safetensors"))]
        return hashlib.sha256("".join(map(checksum, parts)).encode()).hexdigest()
    raise UserError(f"{folder} holds no weights")
