"""The processes of one run: those that torchrun started, or this one alone."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.rendezvous import rendezvous

from hornbook import progress
from hornbook.errors import UserError
from hornbook.parallel.heartbeat import Heartbeat

DIMENSIONS = ("replicate", "shard", "tensor")
"""Of the mesh: whole models beside each other, each in parts, whose matrices are in parts again."""


@dataclass
class Processes:
    """All of them, as one of them sees it."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None
    """(replicate, shard, tensor); None for one process alone."""
    heart: Heartbeat = field(default_factory=Heartbeat)

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    @property
    def tensor(self) -> int:
        """Processes that compute one row together, each with a part of the matrices."""
        return 1 if self.mesh is None else self.mesh["tensor"].size()

    @property
    def groups(self) -> int:
        """Groups that read different rows."""
        return self.size // self.tensor

    @property
    def group(self) -> int:
        """The number of the one that this process belongs to."""
        return self.rank // self.tensor

    def share(self, rows: int) -> slice:
        """Which of a batch's rows this process reads."""
        mine = rows // self.groups
        return slice(self.group * mine, (self.group + 1) * mine)

    def require_rows(self, rows: int) -> None:
        """UserError for a batch that cannot be shared out."""
        if rows % self.groups:
            good = ", ".join(str(k * self.groups) for k in range(max(1, rows // self.groups), rows // self.groups + 3))
            raise UserError(
                f"--batch {rows} cannot be shared by {self.groups} groups of processes: a multiple can, such as {good}"
            )

    def summed(self, value: Tensor) -> Tensor:
        """The sum over all groups of what each has computed of its own rows."""
        if self.mesh is not None:
            with self.heart.at("adding up"):
                dist.all_reduce(value)
            value /= self.tensor
        return value

    def agree(self, seconds: float, stop: bool) -> tuple[float, bool]:
        """The main process's clock, and whether anyone was asked to stop: what all go by."""
        if self.mesh is None:
            return seconds, stop
        with self.heart.at("the end of a step"):
            told = torch.tensor([seconds if self.main else -1.0, float(stop)], dtype=torch.float64)
            dist.all_reduce(told, dist.ReduceOp.MAX)
        return float(told[0]), bool(told[1])

    def told(self, value: Any) -> Any:
        """What the main process has, for all; of JSON's kinds."""
        if self.mesh is None:
            return value
        text = json.dumps(value).encode() if self.main else b""
        with self.heart.at("waiting for the main process"):
            length = torch.tensor([len(text)])
            dist.broadcast(length, 0)
            raw = torch.zeros(int(length), dtype=torch.uint8)
            if self.main:
                raw.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
            dist.broadcast(raw, 0)
        return json.loads(bytes(raw.tolist()))

    def gather(self, value: Tensor) -> list[Tensor]:
        """Everybody's tensor, of one shape and dtype, in the order of ranks; on a CPU."""
        if self.mesh is None:
            return [value]
        found = [torch.empty_like(value) for _ in range(self.size)]
        with self.heart.at("gathering"):
            dist.all_gather(found, value.contiguous())
        return found

    def wait(self) -> None:
        """Until all are here."""
        if self.mesh is not None:
            with self.heart.at("waiting for all"):
                dist.all_reduce(torch.zeros(1))  # a barrier that every backend has, on the CPU

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """What is within is done by the main process, and then by the others, who find what it made."""
        if not self.main:
            self.wait()
        yield
        if self.main:
            self.wait()


@contextlib.contextmanager
def joined(device: str, how: str = "data", tensor: int = 1, timeout: float = 600.0) -> Iterator[Processes]:
    """The processes that torchrun started, this one among them; it alone where nothing else did.

    `how` the model is spread over them: data, shard or hybrid. Within, a collective that takes longer
    than `timeout` seconds ends with who is missing. UserError for a number of processes that does not go with that.
    """
    size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    shape = mesh_shape(size, int(os.environ.get("LOCAL_WORLD_SIZE", "1")), how, tensor)
    if size == 1:
        yield Processes()
        return
    kind, rank = torch.device(device).type, int(os.environ["RANK"])
    if kind == "cuda":
        take_gpu(torch.device(device), int(os.environ["LOCAL_RANK"]))
    limit = datetime.timedelta(seconds=timeout)
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, store=own_store(limit), rank=rank, world_size=size, timeout=limit)
    if rank > 0:  # for good: one process speaks
        progress.silent, sys.stdout = True, open(os.devnull, "w")  # noqa: SIM115
    try:
        heart = Heartbeat(rank, size, timeout)
        mesh = init_device_mesh(kind, shape, mesh_dim_names=DIMENSIONS)
        with heart.at("between steps"):  # what no place within names
            yield Processes(rank, size, mesh, heart)
        heart.at_rest()
    finally:
        dist.destroy_process_group()


def take_gpu(device: torch.device, number: int) -> None:
    """Let this process, of that number on its machine, use a GPU of its own. UserError where there is none."""
    if device.index is not None:
        raise UserError(f"--device {device}: each process takes a GPU of its own, so leave out the number")
    if number >= (count := torch.cuda.device_count()):
        raise UserError(
            f"{number + 1} processes at least on a machine with {count} GPUs: start {count} (--nproc-per-node)"
        )
    torch.cuda.set_device(number)


def own_store(limit: datetime.timedelta) -> dist.Store:
    """Where processes leave their addresses for each other. torchrun's outlives them: after a restart, a quick one
    would find there where another one was before it died, were there not a part of it for each attempt."""
    store, _, _ = next(rendezvous("env://", timeout=limit))
    return dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def mesh_shape(size: int, on_machine: int, how: str, tensor: int) -> tuple[int, int, int]:
    """(replicate, shard, tensor). UserError where they do not come out."""
    if size % tensor:
        raise UserError(f"{size} processes cannot be put in groups of --tensor {tensor}: start a multiple of {tensor}")
    groups = size // tensor
    if how == "shard":
        return 1, groups, tensor
    if how == "hybrid":
        if on_machine % tensor or size % on_machine:
            raise UserError(
                f"--parallel hybrid spreads a model over the processes of a machine, and --tensor {tensor} does not "
                f"divide {on_machine} of them"
            )
        return size // on_machine, on_machine // tensor, tensor
    return groups, 1, tensor
