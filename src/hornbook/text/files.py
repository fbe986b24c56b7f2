"""One file in, its documents out: plain text, rows, compressed or not. What is no text is refused in one line."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from hornbook.errors import UserError, missing_extra, visible

ROWS = (".jsonl", ".csv", ".tsv", ".parquet")
"""Whose rows are documents."""
TABLES = (*ROWS, ".json")
"""Whose rows can be examples: a .json file may as well be one document, so that for a corpus it is."""
NAME_IT = "Name the text's with --column."
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
    if is_rows(path):
        for row in records(path, [column]):
            require_cells(row)
            if column not in row:
                raise UserError(f"{no_column(column, list(row), row.where)} {NAME_IT}")
            yield text_cell(row[column], column, row.where)
        return
    yield read_text(path)


class Row(dict[str, Any]):
    """The cells of a row by column, and where it stands: `row 3 of reviews.csv`."""

    def __init__(self, cells: dict[str, Any], where: str) -> None:
        super().__init__(cells)
        self.where = where


def records(path: str, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a table; of .parquet the named columns alone, where any are named.

    Cells of .csv and .tsv that no column is for come under None. Raises UserError for what is no table.
    """
    form = form_of(path)
    with _whole(path):
        if form == ".parquet":
            yield from _parquet(path, columns)
        elif form == ".jsonl":
            yield from _json_lines(path)
        elif form == ".json":
            yield from _json_array(path)
        elif form in (".csv", ".tsv"):
            yield from _table(path, "," if form == ".csv" else "\t")
        else:
            raise UserError(f"{_shown(path)} has no rows: examples come from {', '.join(sorted(TABLES))} files")


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


def read_text(path: str) -> str:
    """All of a file, or of standard input (`-`), as one text. Raises UserError as `read_documents` does."""
    with _whole(path), open_bytes(path) as file:
        return decode(file.read(), _shown(path)).removeprefix("\ufeff")  # a byte-order mark


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
    file = open(path, "rb")  # noqa: SIM115 (its reader closes it)
    frames = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return io.BufferedReader(_Frames(path, frames, zstandard.ZstdError), 1 << 18)


class _Frames(io.RawIOBase):
    """What a zstandard file holds, decompressed as it is read."""

    def __init__(self, path: str, frames: Any, damaged: type[Exception]) -> None:
        self.path, self.frames, self.damaged = path, frames, damaged

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self.frames.readinto(buffer)
        except self.damaged as error:
            raise UserError(f"{self.path} is damaged: {error}") from None

    def close(self) -> None:
        self.frames.close()
        super().close()


def read_json(path: str) -> Any:
    """What a .json file holds. Raises UserError for what is no JSON."""
    with _whole(path), open_bytes(path) as file:
        text = decode(file.read(), path).removeprefix("\ufeff")  # a byte-order mark
    return parse(text, path)


def parse(text: str, where: str) -> Any:
    """A text's JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise UserError(f"{where} is not JSON: {error.msg} at {place}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists of lists of lists
        raise UserError(f"{where} is JSON that cannot be read: {error}") from None


def _json_lines(path: str) -> Iterator[Row]:
    with open_bytes(path) as file:
        empty = True
        for number, line in enumerate(file, start=1):
            where, empty = f"line {number} of {_shown(path)}", False
            if not line.strip():
                continue
            text = decode(line, where)
            yield _row(parse(text.removeprefix("\ufeff") if number == 1 else text, where), where)
        if empty:
            decode(b"", path)


def _json_array(path: str) -> Iterator[Row]:
    try:
        found = read_json(path)
    except UserError as error:
        if "Extra data" not in str(error):
            raise
        yield from _json_lines(path)  # which many call .json too
        return
    if not isinstance(found, list):
        keys = f" with the keys {', '.join(found)}" if isinstance(found, dict) else ""
        raise UserError(f"{path} is one JSON {'object' if keys else 'value'}{keys}, no array of objects")
    for number, row in enumerate(found, start=1):
        yield _row(row, f"row {number} of {path}")


def _row(found: Any, where: str) -> Row:
    if not isinstance(found, dict):
        raise UserError(f"{where} is no JSON object")
    return Row(found, where)


def _table(path: str, separator: str) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    with open_bytes(path) as file:
        text = decode(file.read(), path).removeprefix("\ufeff")  # a byte-order mark
    head = text[: text.find("\n")]
    if separator == "," and ";" in head and "," not in head:  # as where the comma is decimal
        separator = ";"
    if separator == "\t":
        try:
            yield from list(_cells(path, text, separator))
        except csv.Error:  # most such files know no quoting
            yield from _cells(path, text, separator, csv.QUOTE_NONE)
        return
    number = 0
    try:
        for number, row in enumerate(_cells(path, text, separator), start=1):  # noqa: B007
            yield row
    except csv.Error as error:
        told = f"row {number + 1} of {path} cannot be read: {error}. A quote within a quoted cell is written twice."
        raise UserError(told) from None


def _cells(path: str, text: str, separator: str, quoting: int = csv.QUOTE_MINIMAL) -> Iterator[Row]:
    """The rows of a table's text. Raises csv.Error."""
    lines = io.StringIO(text, newline="")
    reader = csv.DictReader(lines, delimiter=separator, strict=True, quoting=quoting)  # type: ignore[call-overload]
    reader.fieldnames = names = [name.strip() for name in reader.fieldnames or []]
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(visible(f"{path} has two columns '{name}'"))
    for number, row in enumerate(reader, start=1):
        yield Row(row, f"row {number} of {path}")


def _parquet(path: str, columns: Sequence[str] | None) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise missing_extra("pyarrow", "hub", f"reading {path}") from None
    source: Any = path
    if path.endswith(PACKED):
        with open_bytes(path) as packed:
            source = io.BytesIO(packed.read())
    try:
        with pyarrow.parquet.ParquetFile(source) as file:
            names = file.schema_arrow.names
            chosen = [name for name in columns or names if name in names]
            if columns and not chosen:
                raise UserError(f"{no_column(str(columns[0]), names, path)} {NAME_IT}")
            number = 0
            for batch in file.iter_batches(1024, columns=chosen):
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(cells, f"row {number} of {path}")
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read {path}: {error}".splitlines()[0]) from None


def require_cells(row: Row) -> None:
    """UserError for a row with more cells than there are columns."""
    if None in row:
        raise UserError(f"{row.where} has more cells than the header: put double quotes around a text with separators")


def text_cell(value: Any, column: str, where: str) -> str:
    """A cell's text, "" for one that is missing. Raises UserError for what is no text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"column '{column}' in {where} holds {type(value).__name__}, not text")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair, which no UTF-8 file can hold
        raise UserError(f"column '{column}' in {where} holds half a surrogate pair, which is no character") from None
    return value


def no_column(column: str, columns: Iterable[str], where: str) -> str:
    """That a column is missing, and which there are."""
    names = ", ".join(str(name) for name in columns)
    return visible(f"there is no column '{column}' in {where}. Its columns: {names}.")


def _shown(path: str) -> str:
    return "standard input" if path == "-" else path
