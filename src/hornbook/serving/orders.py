"""What one HTTP request wants of a model: one or several answers, and the news of them as they come.

An order lives on the event loop; the worker's thread only reads its requests and sets `answers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from hornbook.generation.answers import Answer, Piece, Request
from hornbook.serving.refusals import Refusal, invalid

if TYPE_CHECKING:
    from hornbook.serving.worker import Worker

T = TypeVar("T")

BACKLOG = 50_000
"""Pieces that may wait to be sent. Long before, a client that does not read at all is cut off by time."""


class News(NamedTuple):
    """A piece of one of the answers."""

    number: int
    """Of the answer within the order."""
    piece: Piece


class Order:
    """Holds `count` places at a worker until it is closed, whatever becomes of it. Refusal where there is no room."""

    def __init__(self, worker: Worker, count: int, wait: float, total: float) -> None:
        worker.take(count)
        self.worker, self.count = worker, count
        self.requests: Sequence[Request] = ()
        self.answers: list[Answer | None] = []
        self.heard: list[News] = []
        self.fresh = asyncio.Event()
        self.refusal: Refusal | None = None
        self.started = self.placed = self.closed = False
        loop = asyncio.get_running_loop()
        self.timers = [loop.call_later(wait, self.waited), loop.call_later(total, self.overdue)]

    def check(self, requests: Sequence[Request]) -> None:
        """Refusal where one can never be answered, or where it is too late."""
        self.worker.check(requests)
        if self.refusal is not None:
            raise self.refusal

    def place(self, requests: Sequence[Request]) -> None:
        """Send them to the worker, one for each place. Refusal as for `check`."""
        self.check(requests)
        assert len(requests) == self.count
        self.requests, self.answers, self.placed = requests, [None] * self.count, True
        self.worker.accept(self)

    async def read(self, pieces: Iterator[T | None]) -> T:
        """What a reading finds, by the worker's thread; before anything is placed. See `Worker.read`."""
        future = self.worker.read(self, pieces)
        waiting = asyncio.ensure_future(self.fresh.wait())
        both: set[asyncio.Future[Any]] = {future, waiting}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self.refusal is not None:
            raise self.refusal
        return future.result()

    async def news(self) -> AsyncIterator[list[News]]:
        """All that has come since the last time, until every answer has ended. Refusal where one cannot be had."""
        left = len(self.requests)
        while left:
            await self.fresh.wait()
            self.fresh.clear()
            if self.refusal is not None:
                raise self.refusal
            batch, self.heard = self.heard, []
            for number, piece in batch:
                left -= piece.finish is not None
                if piece.finish in ("error", "failed", "cancelled"):
                    raise self.broken(number, piece)
            yield batch

    def broken(self, number: int, piece: Piece) -> Refusal:
        if piece.finish == "cancelled":
            return Refusal(503, "the answer was broken off")
        if piece.finish == "failed":
            return Refusal(500, "the model failed: what it said is in the server's log")
        if self.requests[number].sampling.no_repeat_ngram:
            return invalid("no_repeat_ngram rules out every token: make it larger", "no_repeat_ngram")
        return Refusal(500, "the model could not go on: its logits are not numbers, or rule out every token")

    def hear(self, news: News) -> None:
        """Called on the event loop for every piece."""
        self.started = True
        self.heard.append(news)
        self.fresh.set()
        if len(self.heard) > BACKLOG:
            self.fail(Refusal(408, "the client reads too slowly"))

    def waited(self) -> None:
        if not self.started:
            self.fail(Refusal(503, "the server is busy: no turn came in time", "overloaded"))

    def overdue(self) -> None:
        self.fail(Refusal(504, "the answer took longer than this server allows: ask for fewer tokens", "timeout"))

    def fail(self, refusal: Refusal) -> None:
        """End it with an error; the first one stands."""
        if self.refusal is None and not self.closed:
            self.refusal = refusal
            self.fresh.set()
            self.cancel()

    def close(self) -> None:
        """Nobody waits for it any more: its answers leave the engine at its next step."""
        if not self.closed:
            self.closed = True
            for timer in self.timers:
                timer.cancel()
            self.cancel()
            if not self.placed:
                self.worker.give_back(self.count)

    def cancel(self) -> None:
        for answer in self.answers:
            if answer is not None:
                answer.cancelled = True

    @property
    def given_up(self) -> bool:
        return self.closed or self.refusal is not None
