"""Live progress: a bar in a terminal or a notebook, now and then a plain line elsewhere."""

from __future__ import annotations

import html
import math
import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hornbook.errors import visible

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)

CLOCK = 8
"""Columns of a terminal that the time left may take."""
SPEED = 300.0
"""Seconds over which the speed is taken that the time left follows from: several steps, however slow."""
silent = False
"""Whether another process speaks for this one."""
REDRAWN = 0.5
"""Seconds between two pictures of a bar in a notebook."""


class Bar:
    """`with Bar("training") as bar: bar.show(done, total, "loss 3.2  9,400 tokens/s")`; any unit for done and total,
    which is infinite where nobody knows it.

    The parts of a note have two spaces between them; where there is no room, the last parts go first. Inside another
    bar only plain lines are written."""

    live_one = False
    """Whether a bar is drawn at the moment."""

    def __init__(self, label: str, every: float = 10.0) -> None:
        self.label, self.every = label, every
        self.began = self.spoke = time.monotonic()
        self.total = self.first = float("nan")
        self.last = (float("nan"), "")
        self.live: Progress | None = None
        self.cell: Cell | None = None
        if Bar.live_one or silent:
            return
        if sys.stderr.isatty():
            self.live = drawn()
            self.task = self.live.add_task(cut(label, console.width // 3), total=None, note="")
        elif in_notebook():
            self.cell = Cell()

    def show(self, done: float, total: float, note: str = "") -> None:
        """Say how far it is."""
        if self.live is not None:
            label = cut(self.label, console.width // 3)
            room = console.width - len(label) - bar_width() - CLOCK - 3
            known = total if math.isfinite(total) else None
            self.live.update(self.task, completed=done, total=known, note=fitted(note, room))
            return
        now = time.monotonic()
        if total != self.total:  # other work begins
            self.total, self.began, self.first = total, now, done
        self.last = (done, note)
        if now - self.spoke >= (REDRAWN if self.cell else self.every):
            self.spoke = now
            self.tell()

    def tell(self) -> None:
        """Draw the bar of a notebook, or write the plain line, as it was shown last."""
        if silent:
            return
        done, note = self.last
        gained = done - self.first  # a run that carries on does not begin at 0
        left = (time.monotonic() - self.began) * (self.total - done) / gained if gained else float("nan")
        text = f"{self.label}  {100 * done / self.total:3.0f} %  {note}  {duration(left)} left"
        if not math.isfinite(self.total):
            text = f"{self.label}  {note}"
        if self.cell is None:
            console.print(text)
        else:
            self.cell.show(done / self.total, text)

    def __enter__(self) -> Self:
        Bar.live_one = Bar.live_one or self.live is not None or self.cell is not None
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()
        if self.cell is not None and self.total > 0:
            self.tell()
        if self.live is not None or self.cell is not None:
            Bar.live_one = False


def drawn() -> Progress:
    """The bar of a terminal: label, bar, note, time left, on one line."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width()), TextColumn("{task.fields[note]}"))
    how: dict[str, Any] = {"transient": True, "refresh_per_second": 4, "speed_estimate_period": SPEED}
    return Progress(*columns, TimeRemainingColumn(), console=console, **how)


def bar_width() -> int:
    return max(8, min(40, console.width // 8))


def fitted(note: str, room: int) -> str:
    """As many of the note's parts, from the first on, as fit into so many columns; the first one cut if it must be."""
    parts = note.split("  ")
    while len(parts) > 1 and len("  ".join(parts)) > room:
        parts.pop()
    return cut("  ".join(parts), room)


def cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(0, room - 1)] + "…"


class Cell:
    """A bar in the output of a notebook's cell, drawn anew in its place."""

    def __init__(self) -> None:
        self.handle: Any = None

    def show(self, share: float, text: str) -> None:
        from IPython.display import display

        picture = f'<progress max="1" value="{share:.4f}"></progress> <code>{html.escape(text)}</code>'
        bundle = {"text/plain": text, "text/html": picture}
        if self.handle is None:
            self.handle = display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)


def in_notebook() -> bool:
    """Whether a notebook (Jupyter, VS Code, Colab) runs this; IPython is not imported to find out."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def say(line: str) -> None:
    """A plain line on standard error, above a bar if there is one."""
    if silent:
        return
    console.print(visible(line))


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 5 s, 2 h 10 min."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
