"""Logs as JSON lines, written by a thread of their own: a pipe that nobody reads must not hold up the server."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
import traceback
from typing import Any, TextIO

MOST = 10_000
"""Lines that may wait; further ones are dropped and counted."""


class Log:
    """Call it with what happened and its fields; any thread may. Without a stream nothing is written."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.lines: queue.Queue[str | None] = queue.Queue(MOST)
        self.dropped = 0
        self.thread = threading.Thread(target=self.run, name="hornbook-log", daemon=True)
        if stream is not None:
            self.thread.start()

    def __call__(self, event: str, level: str = "info", **fields: Any) -> None:
        if self.stream is None:
            return
        line = {"time": stamp(), "level": level, "event": event, **fields}
        if self.dropped:
            line["dropped"], self.dropped = self.dropped, 0
        try:
            self.lines.put_nowait(json.dumps(line, default=str))
        except queue.Full:
            self.dropped += 1

    def error(self, error: BaseException) -> None:
        """An exception that nobody expected, with the places in the code."""
        self("error", "error", error=repr(error)[:500], trace="".join(traceback.format_tb(error.__traceback__))[-4000:])

    def run(self) -> None:
        assert self.stream is not None
        while (line := self.lines.get()) is not None:
            try:
                self.stream.write(line + "\n")
                self.stream.flush()
            except (OSError, ValueError):  # the reader has gone
                return

    def close(self, patience: float = 1.0) -> None:
        """Write what waits, for at most so many seconds."""
        if self.thread.is_alive():
            try:
                self.lines.put(None, timeout=patience)
            except queue.Full:
                return
            self.thread.join(patience)


class Handler(logging.Handler):
    """What uvicorn logs, as lines of ours."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.log.error(record.exc_info[1])
        else:
            self.log("server", record.levelname.lower(), message=record.getMessage())


def stamp() -> str:
    """Now, in UTC."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
