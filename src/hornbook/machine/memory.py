"""Memory: what this process holds, the most that it held, and an allocator that keeps what is freed."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys

import torch

from hornbook.proc import GROUP, GROUPS, group_memory, read_kilobytes

MMAP_MAX, TRIM_THRESHOLD, TOP_PAD = -4, -1, -2  # malloc.h


def keep_freed_memory() -> None:
    """Have glibc keep what tensors free: given back to the system, it would come again as pages to be zeroed.

    Training on a CPU is up to a third faster. Elsewhere than with glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 64 * 2**20)):
        mallopt(option, value)


def resident_memory() -> int:
    """Bytes of this process that are in memory now; the most so far where the system does not say."""
    return status("VmRSS") or peak_memory()


def peak_memory(device: torch.device | None = None) -> int:
    """The most bytes in memory at once since the process began; on a CUDA device, that tensors held there."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if found := status("VmHWM"):
        return found
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def forget_peak(device: torch.device) -> bool:
    """Give back what was freed, and have `peak_memory` begin anew; False where the system keeps its old peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return True
    with contextlib.suppress(OSError, AttributeError, TypeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # resets VmHWM: proc(5)
    except OSError:
        return False
    return True


def available_memory(device: torch.device | None = None) -> int:
    """Bytes that can be taken without swapping, within the limits of a container; of a CUDA device, its free ones and
    those that torch keeps for itself without using them."""
    if device is not None and device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + idle
    if found := read_kilobytes("/proc/meminfo", "MemAvailable"):
        room = group_memory(GROUP, GROUPS)
        return found if room is None else min(found, room)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 2 * 2**30


def status(name: str) -> int:
    """A figure of /proc/self/status in bytes; 0 where there is none."""
    return read_kilobytes("/proc/self/status", name)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is about memory: CPUs say so only in words."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words)
