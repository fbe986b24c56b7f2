"""State that lies in parts on a disk: each process writes its own, and however many there are later, each reads its.

Through torch.distributed.checkpoint, in safetensors files (its other writer pickles), whose headers say where in its
tensor each part belongs. A plain file of whole tensors is read by the same functions.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor, nn

from hornbook.errors import UserError
from hornbook.manifest import entry
from hornbook.parallel.sharding import rest

STATE = "state"
"""The folder of a checkpoint that they lie in."""
MODEL = "model."
"""What the names of a model's parameters begin with there."""
LIMIT = 1_000_000_000
"""Bytes of a file, about: the writer holds one in memory beside the tensors."""


class StoredPart(NamedTuple):
    """A tensor on a disk."""

    shape: torch.Size
    dtype: torch.dtype


def has_parts(folder: Path) -> bool:
    """Whether a checkpoint's weights lie in parts."""
    return any((folder / STATE).glob("shard-*.safetensors"))


def parameters(model: nn.Module) -> dict[str, Tensor]:
    """A model's, as parts call them; they share its memory."""
    rest(model)
    return {f"{MODEL}{name}": tensor for name, tensor in model.state_dict().items()}


def staged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU of what lies here, laid out as they are."""
    plain = torch.contiguous_format
    return {name: each.detach().to("cpu", copy=True, memory_format=plain) for name, each in tensors.items()}


def write_parts(folder: Path, tensors: Mapping[str, Tensor], group: Any) -> dict[str, dict[str, Any]]:
    """Write what falls to this process; all of `group`, of the same names, must call. When it returns, every process's
    files are on the disk, and the first one gets their sizes and checksums by their names in `folder`.

    OSError, for all, where any of them could not write.
    """
    import torch.distributed.checkpoint as dcp

    writer = dcp.HuggingFaceStorageWriter(str(folder), numbered(tensors), save_distributed=True)
    try:
        dcp.save(dict(tensors), storage_writer=writer, process_group=group)
    except dcp.CheckpointException as error:
        raise OSError(reason(error)) from error
    own = {path.name: entry(path) for path in sorted(folder.glob(f"shard-{dist.get_rank(group) + 1:05d}-*"))}
    found: list[dict[str, Any]] = [{} for _ in range(dist.get_world_size(group))]
    dist.all_gather_object(found, own, group=group)
    return {name: told for each in found for name, told in each.items()}


def numbered(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The number of the file, from 1, that each tensor's part goes to; the same for all processes."""
    ends: dict[str, int] = {}
    total = 0
    for name, tensor in tensors.items():
        total += tensor.numel() * tensor.element_size()
        ends[name] = 1 + total // (LIMIT * dist.get_world_size())
    places = {number: place for place, number in enumerate(sorted(set(ends.values())), start=1)}
    return {name: places[number] for name, number in ends.items()}


def stored_parts(folder: Path) -> dict[str, StoredPart]:
    """What lies in a folder, in parts or whole. UserError where it is damaged, or parts are missing."""
    import torch.distributed.checkpoint as dcp

    try:
        found = dcp.HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    except (SafetensorError, OSError, LookupError, ValueError, TypeError) as error:
        raise UserError(f"cannot read {folder}: it is damaged ({error})") from None
    tensors = {}
    for name, tensor in found.items():
        assert isinstance(tensor, dcp.TensorStorageMetadata)
        if sum(math.prod(chunk.sizes) for chunk in tensor.chunks) != math.prod(tensor.size):
            raise UserError(f"{folder} lacks parts of the tensor '{name}'")
        tensors[name] = StoredPart(tensor.size, tensor.properties.dtype)
    return tensors


def read_parts(folder: Path, wanted: dict[str, Tensor]) -> None:
    """Fill tensors, which may lie in parts here, with what falls to this process; it asks nobody.

    UserError where they are missing, of other shapes, or damaged.
    """
    import torch.distributed.checkpoint as dcp

    found = stored_parts(folder)
    for name, tensor in wanted.items():
        if name not in found:
            raise UserError(f"{folder} lacks the tensor '{name}'")
        if found[name].shape != tensor.shape:
            raise UserError(f"'{name}' has shape {list(found[name].shape)} in {folder}, not {list(tensor.shape)}")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no others take part
            dcp.load(wanted, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=True)
    except dcp.CheckpointException as error:
        raise UserError(f"cannot read {folder}: it is damaged ({reason(error)})") from None


def reason(error: Any) -> str:
    """What went wrong at the first process at which something did."""
    rank, (cause, _) = min(error.failures.items())
    return f"process {rank}: {cause}"
