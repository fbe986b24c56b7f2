"""Compiled products for few rows, where memory is the limit: `products.c`, built on first use.

Whatever is here has a plain path that it is compared with; without a C compiler that path is what runs.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hornbook.atomic import written_aside
from hornbook.progress import say
from hornbook.text.home import home

SOURCE = Path(__file__).with_name("products.c")
FLAGS = ["-O3", "-fopenmp", "-fno-math-errno", "-ffp-contract=fast", "-shared", "-fPIC"]
KINDS = {torch.float32: 0, torch.bfloat16: 1}
"""Number formats of x and y."""
MULTIPLE = 32
"""Of which the width of a matrix, and of its groups, must be one."""


@functools.cache
def library() -> Any:
    """The compiled kernels; None where they cannot be built, which is said once."""
    names = (os.environ.get("CC"), "gcc", "clang", "cc")
    compiler = next((found for name in names if name and (found := shutil.which(name))), None)
    if compiler is None or platform.system() == "Windows":
        return None
    arm = platform.machine() in ("arm64", "aarch64")
    native = ["-mcpu=native"] if arm else ["-march=native", "-mprefer-vector-width=512"]
    path = home() / "kernels" / f"products-{key(compiler)}.so"
    try:
        if not path.exists():
            with written_aside(path) as aside:
                command = [compiler, *FLAGS, *native, str(SOURCE), "-o", str(aside), "-lm"]
                subprocess.run(command, check=True, capture_output=True, timeout=120)
        return declared(ctypes.CDLL(str(path)))
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace").splitlines()[0]
        say(f"the compiled kernels cannot be built ({told}): plain products instead")
        return None


def key(compiler: str) -> str:
    """Of the source, the compiler and the processor, for which alone what is built is good."""
    version = subprocess.run([compiler, "--version"], capture_output=True, timeout=20).stdout
    try:
        cpu = next(
            line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features"))
        )
    except (OSError, StopIteration):
        cpu = platform.processor()
    return hashlib.sha256(SOURCE.read_bytes() + version + cpu.encode() + " ".join(FLAGS).encode()).hexdigest()[:16]


def declared(found: Any) -> Any:
    pointer, number, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    ends = [pointer, pointer, flag, number]  # x, y, their kind, rows of x
    found.hornbook_plain.argtypes = [pointer, pointer, flag, number, number, *ends]
    found.hornbook_coded.argtypes = [pointer, pointer, pointer, flag, number, number, number, *ends]
    found.hornbook_attend.argtypes = [*[pointer] * 7, flag, *[number] * 6]
    for function in (found.hornbook_plain, found.hornbook_coded, found.hornbook_attend):
        function.restype = flag
    return found


def suits(x: Tensor, width: int, group: int) -> bool:
    """Whether the kernels can multiply x (..., width) with a matrix in groups of so many numbers."""
    return (
        x.device.type == "cpu"
        and x.dtype in KINDS
        and width % MULTIPLE == 0
        and group % MULTIPLE == 0
        and library() is not None
    )


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., width) times weight (rows, width) float32 or bfloat16, plus bias (rows,) float32 -> (..., rows)."""
    x, (rows, width) = x.contiguous(), weight.shape
    y = x.new_empty(*x.shape[:-1], rows)
    at = None if bias is None else bias.data_ptr()
    wide = int(weight.dtype == torch.float32)
    finish(library().hornbook_plain(weight.data_ptr(), at, wide, rows, width, *between(x, y, width)))
    return y


class Interleaved(NamedTuple):
    """A quantised matrix (rows, width) whose codes lie as the kernel reads them: 16 rows beside each other."""

    codes: Tensor
    """8 bits: (blocks, width, 16) int8; 4 bits: (blocks, width / 2, 16) uint8, of two columns the first in the low
    half. Blocks of 16 rows, the last one filled up."""
    scales: Tensor
    """(blocks, groups, 16) float16."""
    minimums: Tensor | None
    bits: int
    rows: int


def interleave(codes: Tensor, scales: Tensor, minimums: Tensor | None, bits: int) -> Interleaved:
    """From codes (rows, width), signed for 8 bits and 0 to 15 for 4, scales and minimums (rows, groups) float16."""
    first, second = blocks(codes).unflatten(1, (-1, 2)).unbind(2) if bits == 4 else (blocks(codes), None)
    kept = first if second is None else first | second << 4
    low = None if minimums is None else blocks(minimums)
    return Interleaved(kept.contiguous(), blocks(scales), low, bits, len(codes))


def blocks(part: Tensor) -> Tensor:
    """(rows, n) -> (blocks, n, 16), filled up with zeros."""
    filled = torch.nn.functional.pad(part, (0, 0, 0, -len(part) % 16))
    return filled.unflatten(0, (-1, 16)).transpose(1, 2).contiguous()


def multiply_coded(x: Tensor, matrix: Interleaved) -> Tensor:
    """x (..., width) -> (..., rows)."""
    x, m = x.contiguous(), matrix
    width = x.shape[-1]
    y = x.new_empty(*x.shape[:-1], m.rows)
    low = None if m.minimums is None else m.minimums.data_ptr()
    given = (m.codes.data_ptr(), m.scales.data_ptr(), low, m.bits, m.rows, width, width // m.scales.shape[1])
    finish(library().hornbook_coded(*given, *between(x, y, width)))
    return y


def attends(query: Tensor, keys: Tensor) -> bool:
    """Whether `attend` can do it: query (B,H,T,K), keys (rows,G,slots,K) of one number format, on a CPU."""
    return (
        query.shape[2] == 1
        and query.device.type == "cpu"
        and query.dtype == keys.dtype
        and query.dtype in KINDS
        and query.shape[3] % 16 == 0
        and query.shape[3] <= 256
        and library() is not None
    )


def attend(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, slots: Tensor, window: int | None
) -> Tensor:
    """Attention of the one new token of each row: query (B,H,1,K), key and value (B,G,1,K) -> (B,H,1,K).

    Key and value go to slots[b] of row b of the cache, keys and values (rows,G,slots,K), first; rows beyond B are left
    alone. The token sees that slot and all before it, or the last `window` of these.
    """
    query, key, value, slots = query.contiguous(), key.contiguous(), value.contiguous(), slots.contiguous()
    mixed = torch.empty_like(query)
    given = (x.data_ptr() for x in (query, key, value, keys, values, mixed, slots))
    rows, heads, _, width = query.shape
    sizes = (KINDS[query.dtype], rows, heads, key.shape[1], width, keys.shape[2], window or 0)
    finish(library().hornbook_attend(*given, *sizes))
    return mixed


def between(x: Tensor, y: Tensor, width: int) -> tuple[int, int, int, int]:
    """What both kernels take of x and y."""
    return x.data_ptr(), y.data_ptr(), KINDS[x.dtype], x.numel() // width


def finish(code: int) -> None:
    if code:
        raise MemoryError("there is no memory for a product")
