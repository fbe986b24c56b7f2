"""What this machine is: device, cores, memory, and whether bfloat16 pays here (measured, not read from a name)."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import time

import torch

from hornbook.errors import unknown


def pick_device() -> torch.device:
    """CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def check_device(name: str) -> str:
    """The same name; a UserError where this machine or this torch has no such device."""
    present = ["cpu"]
    present += ["cuda"] if torch.cuda.is_available() else []
    present += ["mps"] if torch.backends.mps.is_available() else []
    if name.split(":")[0] not in present:
        raise unknown("device", name, present, "Others need their hardware, and a build of torch for it.")
    return name


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


def keep_freed_memory() -> None:
    """Have glibc keep what tensors free: given back to the system, it would come again as pages to be zeroed.

    In eager training on a CPU about a tenth faster. Elsewhere than with glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 64 * 2**20)):
        mallopt(option, value)


MMAP_MAX, TRIM_THRESHOLD, TOP_PAD = -4, -1, -2  # malloc.h


def can_compile() -> bool:
    """Whether torch.compile can make CPU code here: it needs a C++ compiler."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def describe(device: torch.device) -> str:
    """One line for reports."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return f"{processor()}, {cores()} cores, {torch.get_num_threads()} threads"


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
