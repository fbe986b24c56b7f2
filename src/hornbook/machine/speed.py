"""How fast this machine multiplies matrices and reads memory: measured in seconds, and remembered where asked to.

Other work on the machine only ever makes such a measurement slower, so the best seen counts.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from hornbook.machine.datasheets import promised
from hornbook.machine.hardware import largest_cache, synchronize
from hornbook.machine.memory import available_memory
from hornbook.machine.remembered import best_seen

SQUARE = {"cuda": 8192}
"""Width of the matrices by kind of device; 2,048 elsewhere."""
PATIENCE = 0.6
"""Seconds after which no further repetition begins."""


@dataclass(frozen=True)
class Peak:
    """What a fraction of the peak is a fraction of."""

    flops: float
    """A second."""
    source: str
    """'data sheet' or 'measured'."""


@dataclass(frozen=True)
class Bandwidth:
    """Bytes a second between memory and processor."""

    read: float
    """A matrix of `bytes` times a vector, as in generation: every number is read once."""
    copy: float
    """The same bytes copied: read and written, each counted once."""
    bytes: int


def seconds_of(run: Callable[[], object], device: torch.device, most: int = 8) -> list[float]:
    """Seconds of each of several runs, the first of which is left out: 2 at least, as many as are patient, `most`."""
    run()
    synchronize(device)
    found: list[float] = []
    while len(found) < 2 or (len(found) < most and sum(found) < PATIENCE):
        found.append(seconds_on_gpu(run, device) if device.type == "cuda" else seconds_here(run, device))
    return found


def seconds_here(run: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def seconds_on_gpu(run: Callable[[], object], device: torch.device) -> float:
    """By the clock of that GPU, so that the way there does not count."""
    with torch.cuda.device(device):  # whose stream the events are put on
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
    return start.elapsed_time(end) / 1000


def matmul_speeds(device: torch.device | str, dtype: torch.dtype, precision: str | None = None) -> tuple[float, ...]:
    """FLOP/s of several products of square matrices (2,048 wide; 8,192 on CUDA), one figure a product.

    `precision` is torch.set_float32_matmul_precision's, for this measurement; None leaves it as it is. On CUDA "high"
    is TF32; on a CPU "medium" may compute in bfloat16. Measured once in a process for a device and a number of threads.
    """
    precision = precision or torch.get_float32_matmul_precision()
    return measured_speeds(torch.device(device), dtype, precision, torch.get_num_threads())


@functools.cache
def measured_speeds(device: torch.device, dtype: torch.dtype, precision: str, threads: int) -> tuple[float, ...]:
    n = SQUARE.get(device.type, 2048)
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    with float32_precision(precision):
        return tuple(2 * n**3 / s for s in seconds_of(lambda: torch.mm(a, b, out=out), device))


def matmul_peak(device: torch.device | str, dtype: torch.dtype, precision: str | None = None) -> float:
    """FLOP/s: the best of `matmul_speeds`."""
    return max(matmul_speeds(device, dtype, precision))


@contextlib.contextmanager
def float32_precision(name: str) -> Iterator[None]:
    """torch's precision of float32 products within."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def reference_peak(device: torch.device | str, dtype: torch.dtype, store: Path | None = None) -> Peak:
    """What a model's FLOP/s (MFU) are compared with: the data sheet of a known NVIDIA GPU, else what products reach.

    `store` (see `best_seen`) brings in what was measured here before. float32 is measured as torch is set, so on CUDA
    it may be TF32.
    """
    device = torch.device(device)
    half = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    if half and (flops := promised(torch.cuda.get_device_name(device))):
        return Peak(flops, "data sheet")
    precision = torch.get_float32_matmul_precision()
    name = f"matmul {str(dtype).removeprefix('torch.')}" + (f" {precision}" if dtype == torch.float32 else "")
    return Peak(best_seen(store, device, name, matmul_peak(device, dtype)), "measured")


@functools.cache
def memory_bandwidth(device: torch.device | str) -> Bandwidth:
    """Bytes a second, of a read and of a copy of twice the largest cache (256 MiB at least; on a GPU 1 GiB).

    Less where memory is short: a quarter of what is free.
    """
    device = torch.device(device)
    size = max(256 * 2**20, 2 * largest_cache()) if device.type == "cpu" else 2**30
    rows = min(size, available_memory(device) // 4) // 4 // 1024
    matrix, vector = torch.ones(rows, 1024, device=device), torch.ones(1024, device=device)
    out, twin = torch.empty(rows, device=device), torch.empty_like(matrix)
    read = min(seconds_of(lambda: torch.mv(matrix, vector, out=out), device, most=5))
    copy = min(seconds_of(lambda: twin.copy_(matrix), device, most=5))
    return Bandwidth(matrix.nbytes / read, 2 * matrix.nbytes / copy, matrix.nbytes)


@functools.cache
def bf16_pays(kind: str) -> bool:
    """Whether to compute in bfloat16: on a CPU where its products are at least 1.3 times as fast (a probe of a few
    milliseconds), on a GPU where they are built in."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return False

    def seconds(dtype: torch.dtype) -> float:
        a, b = torch.randn(512, 512, dtype=dtype), torch.randn(512, 512, dtype=dtype)
        best = float("inf")
        for _ in range(6):
            start = time.perf_counter()
            for _ in range(4):
                a @ b
            best = min(best, time.perf_counter() - start)
        return best

    return seconds(torch.float32) > 1.3 * seconds(torch.bfloat16)
