"""Ctrl-C and SIGTERM end a run between two steps, not inside one."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

ECHO = 1.0
"""Seconds."""


class Interrupted(Exception):
    """The run was asked to stop, and has saved itself."""


@contextlib.contextmanager
def interrupted_by_termination() -> Iterator[None]:
    """Inside, SIGTERM is what Ctrl-C is, also where nothing waits for it."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[Callable[[], bool]]:
    """Inside, the first signal only makes the yielded function true; a second Ctrl-C stops at once.

    One Ctrl-C under torchrun comes twice, from the terminal and from torchrun: what follows at once is the same one.
    """
    asked: float | None = None

    def note(number: int, frame: object) -> None:
        nonlocal asked
        if asked is not None and number == signal.SIGINT and time.monotonic() - asked > ECHO:
            raise KeyboardInterrupt
        asked = time.monotonic() if asked is None else asked

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked is not None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
