"""One file in, its documents out: plain text, rows, compressed or not. What is no text is refused in one line."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from hornbook.errors import UserError, missing_extra

ROWS = (".jsonl", ".csv", ".tsv", ".parquet")
PACKED = (".gz", ".zst")


def form_of(path: str) -> str:
    """The suffix that says how a file is read, without the one for compression: `.jsonl` for `rows.jsonl.gz`."""
    return Path(path[: -len(Path(path).suffix)] if path.endswith(PACKED) else path).suffix.lower()


def is_rows(path: str) -> bool:
    """Whether a file's documents are the rows of a table."""
    return form_of(path) in ROWS


def is_binary(path: str) -> bool:
    """Whether a file holds NUL bytes near its beginning, which no text does."""
    with _whole(path), open_bytes(path) as file:
        return b"\0" in file.read(8192)


def read_documents(path: str, column: str) -> Iterator[str]:
    """The documents of one file (`-`: standard input): its rows' text column, or the whole file as one document.

    Raises UserError when it is missing, empty, binary, not UTF-8 (with the byte's place), or has no such column.
    """
    form = form_of(path)
    with _whole(path):
        if form == ".parquet":
            yield from _parquet(path, column)
        elif form == ".jsonl":
            yield from _json_lines(path, column)
        elif form in (".csv", ".tsv"):
            yield from _table(path, column, "," if form == ".csv" else "\t")
        else:
            with open_bytes(path) as file:
                yield decode(file.read(), _shown(path))


@contextmanager
def _whole(path: str) -> Iterator[None]:
    """Makes a damaged compressed file the user's one-line error."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def decode(data: bytes, name: str) -> str:
    """Bytes as text; UserError when they are none."""
    if not data:
        raise UserError(f"{name} is empty")
    if (at := data.find(b"\0")) >= 0:
        raise UserError(f"{name} is not text: it has a NUL byte at offset {at}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise UserError(f"{name} is not UTF-8: {where}. Convert it first, as with iconv -t utf-8.") from None


@functools.cache
def standard_input() -> bytes:
    """All of standard input. It can be read only once, but several commands open their corpus several times."""
    return sys.stdin.buffer.read()


def open_bytes(path: str) -> IO[bytes]:
    """A file's decompressed bytes."""
    if path == "-":
        return io.BytesIO(standard_input())
    try:
        if path.endswith(".gz"):
            return cast(IO[bytes], gzip.open(path))
        if path.endswith(".zst"):
            return _zstandard(path)
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _zstandard(path: str) -> IO[bytes]:
    try:
        import zstandard
    except ImportError:
        raise missing_extra("zstandard", "zstd", f"reading {path}") from None
    try:
        with (
            open(path, "rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader,
        ):
            return io.BytesIO(reader.read())
    except zstandard.ZstdError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _json_lines(path: str, column: str) -> Iterator[str]:
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(decode(line, f"line {number} of {_shown(path)}"))
            except json.JSONDecodeError as error:
                raise UserError(f"line {number} of {path} is not JSON: {error.msg} at column {error.colno}") from None
            if not isinstance(row, dict):
                raise UserError(f"line {number} of {path} is no JSON object")
            yield _cell(row, column, f"line {number} of {path}")


def _table(path: str, column: str, separator: str) -> Iterator[str]:
    csv.field_size_limit(2**31 - 1)
    with open_bytes(path) as file:
        lines = io.StringIO(decode(file.read(), path).removeprefix("\ufeff"), newline="")  # a byte-order mark
        for number, row in enumerate(csv.DictReader(lines, delimiter=separator), start=1):
            row.pop(None, None)  # cells beyond the header's
            yield _cell(row, column, f"row {number} of {path}")


def _parquet(path: str, column: str) -> Iterator[str]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise missing_extra("pyarrow", "hub", f"reading {path}") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise UserError(_no_column(column, file.schema_arrow.names, path))
            for batch in file.iter_batches(columns=[column]):
                for text in batch.column(0).to_pylist():
                    yield _text(text, column, path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read {path}: {error}".splitlines()[0]) from None


def _cell(row: dict[str, Any], column: str, where: str) -> str:
    if column not in row:
        raise UserError(_no_column(column, list(row), where))
    return _text(row[column], column, where)


def _text(value: Any, column: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"column '{column}' in {where} holds {type(value).__name__}, not text")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair, which no UTF-8 file can hold
        raise UserError(f"column '{column}' in {where} holds half a surrogate pair, which is no character") from None
    return value


def _no_column(column: str, columns: list[str], where: str) -> str:
    return (
        f"there is no column '{column}' in {where}. Its columns: {', '.join(columns)}. Name the text's with --column."
    )


def _shown(path: str) -> str:
    return "standard input" if path == "-" else path
