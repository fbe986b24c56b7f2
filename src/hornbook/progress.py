"""Live progress: a bar in a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hornbook.errors import visible

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


class Bar:
    """`with Bar("training") as bar: bar.show(done, total, "loss 3.2")`; any unit will do for done and total.

    Inside another bar only plain lines are written."""

    live_one = False
    """Whether a bar is drawn at the moment."""

    def __init__(self, label: str, every: float = 10.0) -> None:
        self.label, self.every = label, every
        self.began = self.spoke = time.monotonic()
        self.total = self.first = float("nan")
        self.live: Progress | None = None
        if sys.stderr.isatty() and not Bar.live_one:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
            self.live = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
            self.task = self.live.add_task(label, total=None, note="")

    def show(self, done: float, total: float, note: str = "") -> None:
        """Say how far it is."""
        if self.live is not None:
            self.live.update(self.task, completed=done, total=total, note=note)
            return
        now = time.monotonic()
        if total != self.total:  # other work begins
            self.total, self.began, self.first = total, now, done
        if now - self.spoke >= self.every:
            self.spoke = now
            gained = done - self.first  # a run that carries on does not begin at 0
            left = (now - self.began) * (total - done) / gained if gained else float("nan")
            console.print(f"{self.label}  {100 * done / total:3.0f} %  {note}  {duration(left)} left")

    def __enter__(self) -> Self:
        if self.live is not None:
            Bar.live_one = True
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()
            Bar.live_one = False


def say(line: str) -> None:
    """A plain line on standard error, above a bar if there is one."""
    console.print(visible(line))


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 5 s, 2 h 10 min."""
    if seconds != seconds:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
