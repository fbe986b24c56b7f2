"""The tensors of a Hugging Face folder, wherever its files keep them, read one at a time.

Possible are `model.safetensors`, its sharded form with `model.safetensors.index.json`, and the same two as pickles
(`pytorch_model.bin`), which old folders have. A folder is not trusted: an index may only name files beside itself, and
no file of weights may be a link that leads out of the folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hornbook.errors import UserError
from hornbook.formats.pickles import read_pickle
from hornbook.small_files import read_object

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
QUANTIZED = "quantized.safetensors"
"""Where a quantised model of ours has its tensors: under the usual name transformers would overlook that it cannot read
them, and draw random ones."""
INDEX = ".index.json"
SHARD = re.compile(r"[\w][\w.-]{0,200}\.(safetensors|bin)", re.ASCII)

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool", "U8": "uint8"}
DTYPES |= {f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)}
"""Names of number formats in safetensors -> torch's."""


class Stored(NamedTuple):
    """One tensor of a folder, still on the disk."""

    shape: tuple[int, ...]
    dtype: str
    """Torch's name, or whatever the file calls it."""
    read: Callable[[], Tensor]


@contextmanager
def open_weights(folder: Path, names: tuple[str, ...] = (SAFETENSORS, PICKLE)) -> Iterator[dict[str, Stored]]:
    """The tensors of a folder by their stored names, readable inside the `with`; `names` are the files that have them.

    UserError where there are none, where a file is damaged or holds more than tensors, and where an index names what
    is not there or lies outside the folder.
    """
    with ExitStack() as files:
        for name in names:
            if (folder / name).is_file():
                yield read_file(within(folder, name), files)
                return
            if (folder / f"{name}{INDEX}").is_file():
                yield read_shards(folder, f"{name}{INDEX}", files)
                return
        raise UserError(
            f"{folder} holds no weights: it needs {' or '.join(names)}, or shards with "
            f"{' or '.join(f'{name}{INDEX}' for name in names)}"
        )


def read_file(path: Path, files: ExitStack) -> dict[str, Stored]:
    """The tensors of one file, which `files` keeps open."""
    if path.suffix == ".bin":
        return {name: pickled(tensor) for name, tensor in read_pickle(path).items()}
    path = path.resolve()  # what a run's link leads to may change while it is read: all tensors from one checkpoint
    try:
        file = files.enter_context(safe_open(path, framework="pt"))
        return {name: stored(path, file, name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {path} ({error}): copy or download it again") from None


def stored(path: Path, file: Any, name: str) -> Stored:
    def read() -> Tensor:
        try:  # opened anew: what was read of a file stays in memory for as long as that is open
            with safe_open(path, framework="pt") as fresh:
                return fresh.get_tensor(name)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise UserError(f"cannot read the tensor '{name}' in {path}: {error}") from None

    header = file.get_slice(name)
    dtype = header.get_dtype()
    return Stored(tuple(header.get_shape()), DTYPES.get(dtype, dtype), read)


def pickled(tensor: Tensor) -> Stored:
    return Stored(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), lambda: tensor)


def read_shards(folder: Path, index: str, files: ExitStack) -> dict[str, Stored]:
    """The tensors that an index names, each from its shard."""
    places = weight_map(folder / index)
    kind = ".bin" if index.startswith(PICKLE) else ".safetensors"
    shards = {name: read_file(shard_path(folder, name, kind, index), files) for name in sorted(set(places.values()))}
    for name, shard in places.items():
        if name not in shards[shard]:
            raise UserError(f"{folder / index} says that '{name}' is in {shard}, which does not hold it")
    return {name: shards[shard][name] for name, shard in places.items()}


def weight_map(path: Path) -> dict[str, str]:
    """Tensor -> shard, as an index has it."""
    content = read_object(path)
    places = content.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(shard, str) for shard in places.values()):
        raise UserError(f"{path} is no index of weights: it needs a 'weight_map' from tensors to files")
    return places


def shard_path(folder: Path, name: str, kind: str, index: str) -> Path:
    """The file of a shard. UserError where the name is more than a name, or the file is not in the folder."""
    path = folder / name
    if not SHARD.fullmatch(name) or path.suffix != kind:
        raise UserError(f"{folder / index} names {name[:80]!r}: a shard must be a {kind} file beside its index")
    if not path.is_file():
        raise UserError(f"{folder / index} names the shard {name}, which is missing: copy or download it again")
    return within(folder, name)


def within(folder: Path, name: str) -> Path:
    """The path of a file in a folder. UserError where it is a link that leads out of it."""
    path, place = folder / name, folder.resolve()
    homes = [place, *([place.parents[1]] if place.parent.name == "snapshots" else [])]  # the Hub's cache links to blobs
    if not any(home in path.resolve().parents for home in homes):
        raise UserError(f"{path} is a link that leads out of its folder: put the file itself there")
    return path
