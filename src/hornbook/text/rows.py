"""Rows of a file that a user names, for tasks: which column is which, what a cell says, which split a row is in."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hornbook.errors import UserError, unknown
from hornbook.text.files import Row, no_column, records, require_cells, text_cell
from hornbook.text.splits import SPLITS

T = TypeVar("T")
OWN_FLAGS = ("text", "label")
"""Roles of columns that have a flag of their own."""


def read_rows(path: str, needed: Iterable[str] = ()) -> list[Row]:
    """All rows of a .jsonl, .json, .csv, .tsv or .parquet file, compressed (.gz, .zst) or not, each a dict.

    Raises UserError for a file that is missing, empty, damaged or no such table, and where no row has a column that is
    `needed`.
    """
    path = str(Path(path).expanduser())
    rows = list(records(path))
    if not rows:
        raise UserError(f"{path} has no rows")
    for row in rows:
        require_cells(row)
    columns = columns_of(rows)
    for name in needed:
        if name not in columns:
            raise UserError(no_column(name, columns, path))
    return rows


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns that at least one row has."""
    return list(dict.fromkeys(name for row in rows for name in row))


def find_column(role: str, given: Mapping[str, str], known: Sequence[str], columns: Sequence[str]) -> str | None:
    """The column for a role: that `given` for it, else the first of the `known` names; None where it is missing."""
    wanted = [given[role]] if role in given else known
    return next((name for name in wanted if name in columns), None)


def column_of(role: str, given: Mapping[str, str], known: Sequence[str], columns: Sequence[str], path: str) -> str:
    """The column for a role. Raises UserError, with the columns that there are, where it is missing."""
    found = find_column(role, given, known, columns)
    if found is None:
        flag = f"--{role} COLUMN" if role in OWN_FLAGS else f"--columns {role}=COLUMN"
        wanted = given[role] if role in given else known[0]
        raise UserError(f"{no_column(wanted, columns, path)} Name the one for the {role}: {flag}")
    return found


def text_of(row: Row, column: str) -> str:
    """A cell's text, "" for one that is missing. Raises UserError for what is no text."""
    return text_cell(row.get(column), column, row.where)


def label_of(row: Row, column: str) -> str:
    """A cell's class as it is spelled: of strings without the spaces around it, "4" of 4 and 4.0, "true" of true.

    Raises UserError, with the row, where there is none, or a number that is not whole.
    """
    value = row.get(column)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return str(value)
    if value is None or (isinstance(value, float) and math.isnan(value)) or value == "":
        raise UserError(f"{row.where} has no label: its column '{column}' is empty")
    if not isinstance(value, str):
        shown = repr(value)[:40]
        raise UserError(
            f"column '{column}' in {row.where} holds {shown}: a label is a text, a whole number, or a boolean"
        )
    if not (label := text_cell(value, column, row.where).strip()):
        raise UserError(f"{row.where} has no label: its column '{column}' is blank")
    return label


def whole(row: Any) -> str:
    """A row as a text, by which equal rows are known."""
    return json.dumps(row, sort_keys=True, default=str)


def rank(text: str, seed: int) -> bytes:
    """Where a text stands in the shuffle drawn from a seed, whatever else there is. White space makes no difference."""
    return hashlib.sha256(f"{seed} {' '.join(text.split())}".encode()).digest()


def split_rows(
    rows: Sequence[T], split: str, seed: int = 0, key: Callable[[T], str] = whole, name: str = ""
) -> list[T]:
    """The rows of a split, in an order drawn from `seed`: a tenth to validate on, a tenth to test on, one at least.

    Rows with the same `key` are in the same split; a tenth is one of the different keys. `all` gives all rows in their
    order. Raises UserError for fewer than three different keys; `name` is for the message.
    """
    if split == "all":
        return list(rows)
    if split not in SPLITS:
        raise unknown("split", split, (*SPLITS, "all"))
    ranks = [rank(key(row), seed) for row in rows]
    order = sorted(set(ranks))
    if len(order) < 3:
        raise UserError(
            f"{name or 'the file'} has {len(order)} different example{'s' * (len(order) != 1)}: to train, validate and "
            "test takes three at least"
        )
    tenth = max(1, len(order) // 10)
    first, stop = {"validation": (0, tenth), "test": (tenth, 2 * tenth), "train": (2 * tenth, len(order))}[split]
    wanted = set(order[first:stop])
    return shuffled([row for row, place in zip(rows, ranks, strict=True) if place in wanted], seed)


def shuffled(rows: Iterable[T], seed: int = 0) -> list[T]:
    """In an order that depends on the rows and the seed alone, so that the first n are a fair sample."""
    return sorted(rows, key=lambda row: rank(str(row), seed))
