"""Text and tables, drawn in a terminal, plain and whole everywhere else."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

GAP = 2
"""Spaces behind a column."""


@dataclass(frozen=True)
class Grid:
    """A table, whichever way it is shown."""

    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    figures: int = 0
    """So many of the last columns hold figures, which are set to the right."""


Block = str | Grid


def plain(blocks: list[Block]) -> str:
    """Blocks as text, as wide as it takes: nothing is cut."""
    return "\n\n".join(block if isinstance(block, str) else "\n".join(lines(block)) for block in blocks)


def lines(grid: Grid) -> list[str]:
    """A table's lines, columns two spaces apart."""
    rows = [grid.heads, *grid.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = len(widths) - grid.figures
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def drawn(block: Block, width: int) -> Table | Text:
    """A block for a terminal; what is too wide goes on in the next line, whole words first of all."""
    if isinstance(block, str):
        return Text(block)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    widths = fitted(block, width - GAP * len(block.heads))
    for place, head in enumerate(block.heads):
        right = place >= len(block.heads) - block.figures
        justify: Literal["left", "right"] = "right" if right else "left"
        table.add_column(Text(head), justify=justify, overflow="fold", width=widths[place] if widths else None)
    for row in block.rows:
        table.add_row(*map(Text, row), style="bold" if row[0] == "total" else None)
    return table


def fitted(grid: Grid, room: int) -> list[int] | None:
    """Widths of the columns in which no word is broken; None where there are none. The widest that can gives way."""
    columns = list(zip(grid.heads, *grid.rows, strict=True))
    widths, least = ([max(map(size, column)) for column in columns] for size in (cell_len, longest_word))
    if sum(least) > room:
        return None
    while sum(widths) > room:
        place = max((i for i in range(len(widths)) if widths[i] > least[i]), key=widths.__getitem__)
        widths[place] -= 1
    return widths


def longest_word(cell: str) -> int:
    """Its width, with the cell's indentation before it."""
    indentation = len(cell) - len(cell.lstrip())
    return indentation + max(map(cell_len, cell.split()), default=0)


def wrapped(text: str) -> str:
    """A paragraph in lines of at most 120 characters."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def shaped(shape: Sequence[int]) -> str:
    """(768, 3072) -> 768 x 3072."""
    return " x ".join(map(str, shape)) if shape else "1"


def sized(number: int) -> str:
    """Bytes as people say them: 497.8 MB."""
    return scaled(number, ("B", "kB", "MB", "GB", "TB", "PB"))


def amount(number: int) -> str:
    """1234567 -> 1.2 M; a dash for nothing."""
    return scaled(number, ("", "k", "M", "G", "T", "P")).strip() if number else "-"


def scaled(number: int, units: Sequence[str]) -> str:
    """A number in the largest unit that leaves 1 or more, with one decimal where that rounds."""
    power = 0
    while number >= 999.95 * 1000**power and power < len(units) - 1:
        power += 1
    return f"{number / 1000**power:,.{1 if power else 0}f} {units[power]}"


def html(blocks: list[Block]) -> str:
    """Blocks for a notebook: tables that scroll sideways, text as it is. Everything is escaped."""
    return "".join(f"<pre>{escape(b)}</pre>" if isinstance(b, str) else table_html(b) for b in blocks)


def table_html(grid: Grid) -> str:
    left = len(grid.heads) - grid.figures

    def cells(kind: str, row: tuple[str, ...]) -> str:
        styles = (
            f"text-align:{'left' if place < left else 'right'};white-space:{'pre' if len(cell) < 48 else 'pre-wrap'}"
            for place, cell in enumerate(row)
        )
        return "".join(
            f'<{kind} style="{style}">{escape(cell)}</{kind}>' for style, cell in zip(styles, row, strict=True)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in grid.rows)
    head = f"<thead><tr>{cells('th', grid.heads)}</tr></thead>"
    return f'<div style="overflow-x:auto"><table>{head}<tbody>{body}</tbody></table></div>'
