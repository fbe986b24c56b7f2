"""Compiled products, and whole passes, for few tokens, where memory is the limit: `step.c`, built on first use.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hornbook.atomic import written_aside
from hornbook.progress import say
from hornbook.text.home import home

SOURCE = Path(__file__).with_name("step.c")
FLAGS = ["-O3", "-fopenmp", "-fno-math-errno", "-ffp-contract=fast", "-shared", "-fPIC"]
FLOAT32, BFLOAT16, INT8, INT4 = 32, 16, 8, 4
"""Forms of a matrix."""
KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16}
"""Number formats of x and y."""
MULTIPLE = 32
"""Of which the width of a matrix, and of its groups, must be one."""
PLACES = torch.tensor([4 * t + 16 * j for t in range(4) for j in range(2)], dtype=torch.int32)
"""Of 8 codes of 4 bits in a word of 32."""


@functools.cache
def library() -> Any:
    """The compiled kernels; None where there is no compiler, or, which is said once, they cannot be built."""
    names = (os.environ.get("CC"), "gcc", "clang", "cc")
    compiler = next((found for name in names if name and (found := shutil.which(name))), None)
    if compiler is None or platform.system() == "Windows":
        return None
    try:
        path = home() / "kernels" / f"step-{key(compiler)}.so"
        if not path.exists():
            say("building the kernels for this processor, once, in a few seconds")
            with written_aside(path) as aside:
                command = [compiler, *FLAGS, *target(), str(SOURCE), "-o", str(aside), "-lm"]
                subprocess.run(command, check=True, capture_output=True, timeout=120)
        return declared(ctypes.CDLL(str(path)))
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace").splitlines()
        told = next((line for line in lines if "error" in line), lines[0])
        say(f"the compiled kernels cannot be built ({told}): plain products instead")
        return None


def target() -> list[str]:
    """Flags for this processor."""
    if platform.machine() in ("arm64", "aarch64"):
        return ["-mcpu=native"]
    return ["-march=native", "-mprefer-vector-width=512"]


def key(compiler: str) -> str:
    """Of the source, the compiler and the processor, for which alone what is built is good."""
    version = subprocess.run([compiler, "--version"], capture_output=True, timeout=20).stdout
    try:
        cpu = next(
            line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features"))
        )
    except (OSError, StopIteration):
        cpu = platform.processor()
    sources = [path.read_bytes() for path in sorted(SOURCE.parent.glob("*.[ch]"))]
    flags = " ".join([*FLAGS, *target()]).encode()
    return hashlib.sha256(b"".join(sources) + version + cpu.encode() + flags).hexdigest()[:16]


def declared(found: Any) -> Any:
    pointer, number, count = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    found.hornbook_product.argtypes = [pointer, pointer, number, pointer, number, number]
    found.hornbook_step.argtypes = [pointer, number, pointer, pointer, pointer, *[number] * 3]
    found.hornbook_tiles.argtypes = []
    for function in (found.hornbook_product, found.hornbook_step, found.hornbook_tiles):
        function.restype = count
    return found


class Layout(ctypes.Structure):
    """`Matrix` of products.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "scales", "minimums", "bias")),
        *((name, ctypes.c_int64) for name in ("rows", "width", "group", "form")),
    )


class Matrix:
    """A matrix (rows, width) as the kernels read it, and the bias (rows,) that is added to products with it."""

    def __init__(self, form: int, rows: int, width: int, parts: Sequence[Tensor | None], bias: Tensor | None) -> None:
        """`parts` are weights, scales and minimums, contiguous; scales are (blocks, groups, 16)."""
        self.form, self.rows, self.width = form, rows, width
        groups = 1 if parts[1] is None else parts[1].shape[1]
        self.group = width // groups
        self.parts = (*parts, None if bias is None else bias.detach().float().contiguous())
        self.layout = Layout(*map(address, self.parts), rows, width, self.group, form)

    def biased(self, bias: Tensor | None) -> Matrix:
        """The same numbers with a bias."""
        return Matrix(self.form, self.rows, self.width, self.parts[:3], bias)

    @property
    def most(self) -> int:
        """Rows of x up to which the kernels are faster than making the matrix whole, and torch's products."""
        tiles = bool(library().hornbook_tiles())
        if self.form in (FLOAT32, BFLOAT16):
            return 96 if tiles and self.form == BFLOAT16 else 8
        return 256 if tiles else 64


def address(part: Tensor | None) -> int | None:
    return None if part is None else part.data_ptr()


def plain(weight: Tensor, bias: Tensor | None = None) -> Matrix | None:
    """weight (rows, width) float32 or bfloat16, bias (rows,); None where the kernels cannot have it."""
    if not weight.is_contiguous() or weight.shape[1] % MULTIPLE or not suits(weight):
        return None
    rows, width = weight.shape
    return Matrix(KINDS[weight.dtype], rows, width, (weight.detach(), None, None), bias)


def coded(codes: Tensor, scales: Tensor, minimums: Tensor | None, bits: int) -> Matrix | None:
    """codes (rows, width), signed for 8 bits and 0 to 15 for 4, scales and minimums (rows, groups) float16.

    They are laid as `Matrix` of products.h has it. None where the kernels cannot have them.
    """
    rows, width = codes.shape
    if codes.device.type != "cpu" or library() is None or width % MULTIPLE or width // scales.shape[1] % MULTIPLE:
        return None
    kept = blocks(codes)
    if bits == INT4:
        kept = (kept.int().unflatten(1, (-1, 8)) << PLACES[:, None]).sum(2, dtype=torch.int32)
    low = None if minimums is None else blocks(minimums)
    return Matrix(bits, rows, width, (kept, blocks(scales), low), None)


def codes_of(matrix: Matrix, rows: slice | Tensor) -> Tensor:
    """Rows of the codes that `coded` was given, by a slice or (...) by number: (..., width)."""
    kept = matrix.parts[0]
    assert kept is not None
    if isinstance(rows, slice):
        first = rows.start // 16
        found = kept[first : -(-rows.stop // 16)].transpose(1, 2).flatten(0, 1)[rows.start - 16 * first :]
        found = found[: rows.stop - rows.start]
    else:
        found = kept[rows // 16, :, rows % 16]
    if matrix.form == INT8:
        return found
    return (found[..., None] >> PLACES & 15).to(torch.uint8).flatten(-2)


def blocks(part: Tensor) -> Tensor:
    """(rows, n) -> (blocks, n, 16), filled up with zeros."""
    filled = torch.nn.functional.pad(part, (0, 0, 0, -len(part) % 16))
    return filled.unflatten(0, (-1, 16)).transpose(1, 2).contiguous()


def suits(x: Tensor) -> bool:
    """Whether the kernels can work with numbers of this kind, where they are."""
    return x.device.type == "cpu" and x.dtype in KINDS and library() is not None


def multiply(x: Tensor, matrix: Matrix, dtype: torch.dtype | None = None) -> Tensor:
    """x (..., width) float32 or bfloat16 -> (..., rows) with the bias, float32 or bfloat16 (default as x)."""
    x = x.contiguous()
    y = x.new_empty(*x.shape[:-1], matrix.rows, dtype=dtype or x.dtype)
    ends = (x.data_ptr(), KINDS[x.dtype], y.data_ptr(), KINDS[y.dtype])
    finish(library().hornbook_product(ctypes.byref(matrix.layout), *ends, x.numel() // matrix.width))
    return y


def finish(code: int) -> None:
    if code:
        raise MemoryError("there is no memory for a product")
