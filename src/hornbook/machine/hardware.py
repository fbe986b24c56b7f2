"""What this machine is: device, processor, cores, compiler."""

from __future__ import annotations

import os
import platform
import re
import shutil
from functools import cache
from pathlib import Path

import torch

from hornbook import __version__
from hornbook.errors import UserError, unknown
from hornbook.proc import cores


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
    kind, _, number = name.partition(":")
    if kind not in present or not re.fullmatch(r"[a-z]+(:[0-9]+)?", name):
        raise unknown("device", name, present, "Others need their hardware, and a build of torch for it.")
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise UserError(f"there is no {name}: this machine has {torch.cuda.device_count()}, from cuda:0 on")
    return name


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def physical_cores() -> int:
    """Cores of the processors that this process may use: two processors may share one."""
    found = set()
    for processor in sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ():
        try:
            found.add(Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list").read_text())
        except OSError:
            return cores()
    return min(len(found) or cores(), cores())


def can_compile() -> bool:
    """Whether torch.compile can make CPU code here: it needs a C++ compiler."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


@cache
def compile_fault(device: str = "cpu") -> str | None:
    """Why torch.compile does not work here, in a line; None where it made something small that is right."""
    if device == "cpu" and not can_compile():
        return "there is no C++ compiler"
    try:
        numbers = torch.arange(64.0, device=device)
        found = torch.compile(lambda x: 2 * x + 1, dynamic=False)(numbers)
    except Exception as error:  # whatever a compiler, or what drives it, has to say
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        return next((line for line in lines if "error:" in line), lines[0])[:200]
    return None if torch.equal(found, 2 * numbers + 1) else "what it compiles computes something else"


def describe(device: torch.device) -> str:
    """One line for reports."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return f"{processor()}, {number_of(cores(), 'core')}, {number_of(torch.get_num_threads(), 'thread')}"


def number_of(count: int, word: str) -> str:
    """2 threads, 1 thread."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def versions() -> dict[str, str]:
    """Of what computes, for reports."""
    return {"hornbook": __version__, "python": platform.python_version(), "torch": torch.__version__}


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


def largest_cache() -> int:
    """Bytes of the processor's largest cache; 32 MiB where the system does not say."""
    found = [32 * 2**20]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            text = path.read_text().strip()
            found.append(int(text.rstrip("KM")) * {"K": 2**10, "M": 2**20}.get(text[-1:], 1))
        except (OSError, ValueError):
            continue
    return max(found)
