"""GGUF, llama.cpp's container: metadata, a list of tensors, and their data, in one file.

Layout (ggml's docs/gguf.md): the magic "GGUF", version, counts; keys with typed values; name, dimensions, number format
and offset of every tensor; padding; the data. Little-endian. Dimensions are stored innermost first, and turned round
here into torch's order.

A file is not trusted: every count, length and offset is checked against the file before anything is made from it, and
a file that contradicts itself is a UserError. Data stay on the disk (memory-mapped) until a tensor is read.
"""

from __future__ import annotations

import math
import mmap
import reprlib
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hornbook.atomic import written_aside
from hornbook.errors import UserError, unknown
from hornbook.formats.gguf_types import NAMES, TYPES, WRITTEN, decode, encode, row_bytes

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
"""Data begin at multiples of this many bytes, where `general.alignment` does not say otherwise."""

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Number of a value's type -> its code, which `struct` and numpy share."""
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64 = 4, 5, 6, 7, 8, 9, 10, 11

MOST_TENSORS = 1 << 17
MOST_KEYS = 1 << 16
MOST_ELEMENTS = 1 << 24
"""Of all arrays of the metadata together."""
LONGEST_NAME = 1 << 16
LONGEST_TEXT = 1 << 26
DEEPEST = 4
"""Arrays within arrays."""
MOST_DIMENSIONS = 4
WIDEST_ALIGNMENT = 1 << 16
CHUNK = 1 << 22
"""Weights converted at a time."""


BRIEF = reprlib.Repr()
BRIEF.maxstring = BRIEF.maxother = 80


def shown(value: Any) -> str:
    """A value from a file, for a message: quoted, on one line, and short."""
    return BRIEF.repr(value)


def named(value: Any) -> str:
    """The same without quotes."""
    return shown(value)[1:-1] if isinstance(value, str) else shown(value)


class Info(NamedTuple):
    """Where a tensor lies."""

    shape: tuple[int, ...]
    """In torch's order: rows first, the innermost dimension last."""
    kind: str
    """Number format, such as "Q4_1"."""
    start: int
    """First byte in the file."""
    size: int
    """Bytes."""


class GGUFFile:
    """A GGUF file, opened for reading. Raises UserError for anything that is not a sound one."""

    metadata: dict[str, Any]
    """Values by key: int, float, bool, str, and lists of them."""
    tensors: dict[str, Info]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._data = mapped(self.path)
        header = Header(self._data, self.path)
        tensors, keys = header.counts()
        self.metadata = header.metadata(keys)
        self.tensors = header.tensors(tensors, self.metadata.get("general.alignment", ALIGNMENT))

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes of a tensor, (N, bytes a row), without copying them."""
        info = self.tensors[name]
        rows = np.frombuffer(self._data, np.uint8, info.size, info.start)
        return rows.reshape(-1, row_bytes(info.kind, info.shape[-1]))

    def read(self, name: str) -> Tensor:
        """A tensor as float32. UserError where its format needs the package `gguf` and that is missing."""
        info, rows = self.tensors[name], self.raw(name)
        result = torch.empty(info.shape, dtype=torch.float32)
        flat, step = result.view(len(rows), -1).numpy(), max(1, CHUNK // info.shape[-1])
        for at in range(0, len(rows), step):
            flat[at : at + step] = decode(rows[at : at + step], info.kind)
        return result


def mapped(path: Path) -> mmap.mmap:
    """The file's bytes, read from the disk only where they are looked at."""
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise UserError(f"{path} is not a GGUF file: it is empty")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


class Header:
    """Reads a header from front to back; no step may leave the file."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at, self.elements = data, path, 0, 0

    def broken(self, what: str) -> UserError:
        return UserError(f"{self.path} is no sound GGUF file: {what} (at byte {self.at})")

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise self.broken("it ends within its header")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, code: str) -> Any:
        """One number; code as in `struct`."""
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def text(self, longest: int = LONGEST_TEXT) -> str:
        length = self.number("Q")
        if length > longest:
            raise self.broken(f"a text of {length:,} bytes")
        raw = self.take(length)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.broken("a text that is not UTF-8") from None

    def counts(self) -> tuple[int, int]:
        """How many tensors and keys follow."""
        if self.data[: len(MAGIC)] != MAGIC:
            raise UserError(f"{self.path} is not a GGUF file: it does not begin with 'GGUF'")
        self.take(len(MAGIC))
        version = self.number("I")
        if version not in (2, VERSION):
            kind = "big-endian" if version & 0xFFFF == 0 else f"of GGUF version {version}"
            raise UserError(f"{self.path} is {kind}: only little-endian files of version 2 and 3 are read")
        tensors, keys = self.number("Q"), self.number("Q")
        if tensors > MOST_TENSORS or keys > MOST_KEYS:
            raise self.broken(f"it announces {tensors:,} tensors and {keys:,} keys")
        return tensors, keys

    def metadata(self, count: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for _ in range(count):
            key = self.text(LONGEST_NAME)
            if key in values:
                raise self.broken(f"the key {shown(key)} occurs twice")
            values[key] = self.value(self.number("I"))
        return values

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == ARRAY:
            return self.array(depth + 1)
        if kind == STRING:
            return self.text()
        if kind not in SCALARS:
            raise self.broken(f"a value of the unknown type {kind}")
        if kind == BOOL:
            return self.truth(self.number("B"))
        return self.number(SCALARS[kind])

    def truth(self, byte: int) -> bool:
        if byte > 1:
            raise self.broken(f"{byte} where there should be true or false")
        return byte == 1

    def array(self, depth: int) -> list[Any]:
        kind, count = self.number("I"), self.number("Q")
        self.elements += count
        if depth > DEEPEST or self.elements > MOST_ELEMENTS:
            raise self.broken(f"an array of {count:,} values, {depth} deep")
        if kind in (ARRAY, STRING) or kind not in SCALARS:
            return [self.value(kind, depth) for _ in range(count)]
        numbers = np.dtype("<" + ("B" if kind == BOOL else SCALARS[kind]))
        found = np.frombuffer(self.take(count * numbers.itemsize), numbers).tolist()
        return [self.truth(byte) for byte in found] if kind == BOOL else found

    def tensors(self, count: int, alignment: Any) -> dict[str, Info]:
        if not isinstance(alignment, int) or not 0 < alignment <= WIDEST_ALIGNMENT or alignment & (alignment - 1):
            raise self.broken(f"general.alignment is {shown(alignment)}, no power of two up to {WIDEST_ALIGNMENT:,}")
        found: dict[str, Info] = {}
        for _ in range(count):
            name = self.text(LONGEST_NAME)
            if name in found:
                raise self.broken(f"the tensor {shown(name)} occurs twice")
            found[name] = self.tensor(name, alignment)
        start = -(-self.at // alignment) * alignment
        found = {name: info._replace(start=start + info.start) for name, info in found.items()}
        self.check_places(found)
        return found

    def tensor(self, name: str, alignment: int) -> Info:
        """One entry; its `start` still counts from the beginning of the data."""
        dimensions = self.number("I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise self.broken(f"the tensor {shown(name)} has {dimensions} dimensions")
        shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
        kind, start = self.number("I"), self.number("Q")
        if kind not in NAMES:
            raise self.broken(f"the tensor {shown(name)} has the unknown type {kind}; known are {', '.join(TYPES)}")
        layout, weights = TYPES[NAMES[kind]], math.prod(shape)
        if not weights or shape[-1] % layout.block or start % alignment:
            raise self.broken(f"the tensor {shown(name)} of shape {list(shape)} cannot be {NAMES[kind]} at {start:,}")
        return Info(shape, NAMES[kind], start, weights // layout.block * layout.size)

    def check_places(self, tensors: Mapping[str, Info]) -> None:
        """Every tensor lies in the file, and no two lie on each other."""
        for name, info in tensors.items():
            if info.start + info.size > len(self.data):
                end = info.start + info.size
                raise self.broken(
                    f"the tensor {shown(name)} ends at byte {end:,} of a file of {len(self.data):,}: cut off?"
                )
        placed = sorted(tensors.items(), key=lambda item: item[1].start)
        for (one, before), (other, after) in pairwise(placed):
            if before.start + before.size > after.start:
                raise self.broken(f"the tensors {shown(one)} and {shown(other)} lie on each other")


Entry = tuple[str, Sequence[int], str, Callable[[], Tensor]]


def write(path: str | Path, metadata: Mapping[str, Any], tensors: Iterable[Entry]) -> None:
    """Write a GGUF file of version 3, whole or not at all.

    metadata: int (uint32 where it fits), float (float32), bool, str, and lists of one of them (int32, float32).
    tensors: name, shape in torch's order, number format (one of `WRITTEN`), and a function that gives the tensor, which
    is called when its turn has come, so that one is in memory at a time. OSErrors pass through.
    """
    entries = list(tensors)
    head = header(metadata, entries)
    with written_aside(path) as aside, open(aside, "wb") as file:
        file.write(head)
        for name, shape, kind, give in entries:
            tensor = give().detach().to("cpu", torch.float32).contiguous()
            assert tensor.shape == tuple(shape), (name, tensor.shape, shape)
            write_rows(file, tensor.reshape(-1, shape[-1]), kind)
            file.write(padding(file.tell()))


def header(metadata: Mapping[str, Any], entries: Sequence[Entry]) -> bytes:
    """All that stands before the data, padded."""
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(entries), len(metadata))]
    for key, value in metadata.items():
        number, packed = pack(value)
        parts += [pack(key)[1], struct.pack("<I", number), packed]
    start = 0
    for name, shape, kind, _ in entries:
        if kind not in WRITTEN:
            raise unknown("number format of GGUF", kind, WRITTEN)
        parts += [pack(name)[1], struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))]
        parts.append(struct.pack("<IQ", TYPES[kind].number, start))
        size = math.prod(shape[:-1]) * row_bytes(kind, shape[-1])
        start += size + len(padding(size))
    whole = b"".join(parts)
    return whole + padding(len(whole))


def pack(value: Any) -> tuple[int, bytes]:
    """The type of a value and its bytes."""
    if isinstance(value, bool):
        return BOOL, struct.pack("<?", value)
    if isinstance(value, str):
        raw = value.encode("utf-8")
        return STRING, struct.pack("<Q", len(raw)) + raw
    if isinstance(value, float):
        return FLOAT32, struct.pack("<f", value)
    if isinstance(value, int):
        kind = INT64 if value < 0 else UINT32 if value < 1 << 32 else UINT64
        return kind, struct.pack("<" + SCALARS[kind], value)
    kinds = {INT32 if isinstance(item, int) and not isinstance(item, bool) else pack(item)[0] for item in value}
    (kind,) = kinds or {STRING}
    if kind == INT32:
        items = np.array(value, "<i4").tobytes()
    else:
        items = b"".join(pack(item)[1] for item in value)
    return ARRAY, struct.pack("<IQ", kind, len(value)) + items


def write_rows(file: BinaryIO, rows: Tensor, kind: str) -> None:
    step = max(1, CHUNK // rows.shape[1])
    for at in range(0, len(rows), step):
        file.write(np.ascontiguousarray(encode(rows[at : at + step], kind)).data)


def padding(length: int) -> bytes:
    return bytes(-length % ALIGNMENT)
