"""The console, and the tables that several commands print."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from hornbook.inspection.grid import Block

console = Console(
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160
)


def print_table(rows: list[list[str]]) -> None:
    """A table whose first row is its head, and whose first column is words."""
    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if place else "left")
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    console.print(table)


def print_scores(rows: dict[str, dict[str, Any]]) -> None:
    """A table of summaries."""
    table = [["model", "bits per byte", "95 % interval", "word perplexity", "token perplexity"]]
    for name, found in rows.items():
        bits, interval = found["bits_per_byte"], found["bits_per_byte_interval"]
        perplexities = (found["word_perplexity"], found["token_perplexity"])
        table.append(
            [
                name,
                "-" if bits is None else f"{bits:.4f}",
                "-" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}",
                *("-" if x is None else f"{x:,.2f}" if x < 1e12 else f"{x:.3g}" for x in perplexities),
            ]
        )
    print_table(table)


def print_blocks(blocks: list[Block]) -> None:
    """Text and tables: drawn in a terminal, plain and whole everywhere else."""
    from hornbook.inspection.grid import drawn, plain

    if not console.is_terminal:
        return print(plain(blocks))
    for block in blocks:
        console.print(drawn(block, console.width))
        console.print()
