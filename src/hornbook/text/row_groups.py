"""Large parquet files, read row group by row group: memory for one row group's text, whatever the file's size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hornbook.errors import UserError, missing_extra

AT_ONCE = 1024
"""Rows that become strings together."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A pyarrow ParquetFile; what is wrong with it, or pyarrow missing, as the user's one line."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise missing_extra("pyarrow", "hub", f"reading {path.name}") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read {path}: {error}".splitlines()[0]) from None


def rows(path: Path) -> int:
    """How many rows a file has; only its footer is read."""
    with opened(path) as file:
        return file.metadata.num_rows


def texts(path: Path, start: int = 0, stop: int | None = None, column: str = "text") -> Iterator[str]:
    """The texts of rows `start` to `stop`, "" for a missing one; row groups before `start` are not read."""
    with opened(path) as file:
        if column not in file.schema_arrow.names:
            raise UserError(f"there is no column '{column}' in {path}: {', '.join(file.schema_arrow.names)}")
        first = 0
        for group in range(file.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            if last > start and (stop is None or first < stop):
                row = first
                for batch in file.iter_batches(AT_ONCE, row_groups=[group], columns=[column]):
                    wanted = slice(max(0, start - row), None if stop is None else max(0, stop - row))
                    yield from (text or "" for text in batch.column(0).to_pylist()[wanted])
                    row += len(batch)
            first = last
