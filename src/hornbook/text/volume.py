"""About how much text some files hold, told without reading them: for what takes hours, and what fills disks."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import islice

from hornbook.text.files import PACKED, is_rows, records

ROWS = 200
"""Of a table's, by which it is judged how much of it is text."""
PACKING = 2.5
"""Bytes of text to a byte of a file that is compressed, as .parquet also is: seldom less."""


def text_volume(files: Sequence[str], column: str) -> float:
    """Bytes; NaN for standard input. UserError for a table that cannot be read."""
    if "-" in files:
        return math.nan
    tables = [file for file in files if is_rows(file)]
    share = text_share(tables[0], column) if tables else 1.0
    return sum(unpacked(file) * (share if is_rows(file) else 1) for file in files)


def unpacked(file: str) -> float:
    """Bytes of what a file holds."""
    return os.path.getsize(file) * (PACKING if file.endswith((*PACKED, ".parquet")) else 1)


def text_share(file: str, column: str) -> float:
    """How much of a table is its text, judged by its first rows; of JSON the columns' names are a part too."""
    text = everything = 0
    named = ".json" in file
    for row in islice(records(file), ROWS):
        sizes = {name: len(str(cell).encode(errors="replace")) for name, cell in row.items()}
        text += sizes.get(column, 0)
        everything += sum(sizes.values()) + sum(len(str(name)) + 6 for name in row if named)
    return text / everything if everything else 1.0
