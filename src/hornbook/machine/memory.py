"""Memory: what this process holds, the most that it held, and an allocator that keeps what is freed."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path

import torch

from hornbook.proc import read_kilobytes

GROUP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
FILES = {
    "": ("memory.max", "memory.current", ("inactive_file", "active_file")),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
}
"""Of the second and the first version of control groups: limit, use, and what of that can be taken back."""
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
    """Bytes that can be taken without swapping, within the limits of a container; of a CUDA device, its free ones."""
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if found := read_kilobytes("/proc/meminfo", "MemAvailable"):
        room = group_memory(GROUP, GROUPS)
        return found if room is None else min(found, room)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 2 * 2**30


def group_memory(group: Path, groups: Path) -> int | None:
    """Bytes that this process's control group, and those above it, leave it; None where none sets a limit.

    `group` as in cgroups(7), whose controllers stand in the folder `groups`. Pages of files that the kernel can take
    back count as free.
    """
    rooms = []
    with contextlib.suppress(OSError, ValueError):
        for line in group.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            top = groups / controllers
            most, used, files = FILES[controllers]
            inside = top / path.lstrip("/")
            for place in (inside, *(above for above in inside.parents if above.is_relative_to(top))):
                with contextlib.suppress(OSError, ValueError):
                    limit = int((place / most).read_text())  # ValueError: max
                    stated = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
                    rooms.append(limit - int((place / used).read_text()) + sum(int(stated.get(f, 0)) for f in files))
    return max(0, min(rooms)) if rooms else None


def status(name: str) -> int:
    """A figure of /proc/self/status in bytes; 0 where there is none."""
    return read_kilobytes("/proc/self/status", name)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is about memory: CPUs say so only in words."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words)
