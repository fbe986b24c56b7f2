"""uvicorn's connections, with an end to those that keep a place and do nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from hornbook.config import Serve

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
KEEP_ALIVE = 5
"""Seconds that a connection may stay open between two requests."""
SLACK = 2.0
"""Seconds beyond the time for a body in which it is refused politely."""


class Connection(H11Protocol):
    """Cut off when a request does not come, or its answer is not read, in time. `settings` are the server's."""

    def __init__(self, *arguments: Any, settings: Serve, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.settings = settings
        self.asked = time.monotonic()
        """Since when a request is awaited."""
        self.stuck: float | None = None
        """Since when there has been more to send than the client takes."""
        self.closing: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.settings.connections:
            transport.write(BUSY)
            transport.close()

    def on_response_complete(self) -> None:
        self.asked = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        self.stuck = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.stuck = None
        super().resume_writing()

    def sweep(self, now: float) -> None:
        """Cut the connection off where it is time to. Called once a second."""
        if self.transport.is_closing() and self.closing is None:
            self.closing = now
        read, write = self.settings.read_timeout, self.settings.write_timeout
        waiting = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        late = waiting and now - self.asked > read + KEEP_ALIVE + SLACK
        if late or any(since is not None and now - since > write for since in (self.stuck, self.closing)):
            self.transport.abort()
