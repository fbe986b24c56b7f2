"""The thread that runs one model's engine, and the way between it and the event loop.

Only this thread has the engine do anything. What its answers say is handed over once a step, in one call.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from hornbook.errors import UserError
from hornbook.generation.answers import Answer, Piece, Request
from hornbook.generation.engine import Engine
from hornbook.layers.model import LanguageModel
from hornbook.serving.orders import News, Order
from hornbook.serving.refusals import Refusal, invalid
from hornbook.serving.threads import dismiss

T = TypeVar("T")
Reading = tuple[Order, Iterator[Any], "asyncio.Future[Any]"]


class NoEngine(Engine):
    """That of a model which writes nothing: it is never busy, and refuses requests."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.rows = model, 0
        self.waiting, self.reading, self.running = deque(), [], []

    def check(self, request: Request) -> None:
        self.model.require_tokens()


class Worker:
    """One model's engine in a thread of its own.

    `make` builds the engine, again after an exception of the model. At most `room` answers are open at a time,
    running or waiting. `trouble` is told of exceptions.
    """

    def __init__(
        self,
        model: LanguageModel,
        make: Callable[[], Engine],
        room: int,
        trouble: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.model, self.make, self.room, self.trouble = model, make, room, trouble
        self.engine = make()
        self.open = 0
        """Places taken; touched by the event loop only."""
        self.bell = threading.Condition()
        self.arrivals: list[Order] = []
        self.readings: deque[Reading] = deque()
        self.ending = False
        self.said: list[tuple[Order, News]] = []
        self.waiting: list[Order] = []
        """Orders none of whose answers has begun."""
        self.thread = threading.Thread(target=self.run, name="hornbook-engine", daemon=True)

    # On the event loop

    def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread.start()

    def stop(self, patience: float = 10.0) -> None:
        """Break off what is left and end the thread; seconds to wait for its last step."""
        with self.bell:
            self.ending = True
            self.bell.notify()
        if self.thread.is_alive():
            self.thread.join(patience)

    @property
    def alive(self) -> bool:
        return self.thread.is_alive()

    def take(self, count: int) -> None:
        """Take places. Refusal where there are not as many."""
        if not self.alive:
            raise Refusal(503, "this model's engine does not run")
        if count > self.room:
            raise invalid(f"{count} answers in one request: at most {self.room} are open at a time", "n")
        if self.open + count > self.room:
            raise Refusal(429, f"the queue is full: {self.open} answers are open", "queue_full")
        self.open += count

    def give_back(self, count: int) -> None:
        self.open -= count

    def check(self, requests: Sequence[Request]) -> None:
        """Refusal where one can never be answered."""
        try:
            for request in {id(request.prompt): request for request in requests}.values():  # samples differ in nothing
                self.engine.check(request)
        except UserError as error:
            raise invalid(str(error)) from None

    def accept(self, order: Order) -> None:
        with self.bell:
            self.arrivals.append(order)
            self.bell.notify()

    def read(self, order: Order, pieces: Iterator[T | None]) -> asyncio.Future[T]:
        """What the model is asked beside generating: `pieces` gives None after each piece of work, of which one is done
        between two of the engine's steps, and what was found in the end."""
        future: asyncio.Future[T] = self.loop.create_future()
        with self.bell:
            self.readings.append((order, pieces, future))
            self.bell.notify()
        return future

    def deliver(self, said: list[tuple[Order, News]]) -> None:
        for order, news in said:
            order.hear(news)
            self.open -= news.piece.finish is not None

    # In the thread

    def run(self) -> None:
        while True:
            with self.bell:
                if not self.called:
                    dismiss()
                while not self.called:
                    self.bell.wait()
                arrivals, self.arrivals = self.arrivals, []
            if self.ending:
                self.end_all("cancelled", arrivals)
                return
            self.turn(arrivals)

    @property
    def called(self) -> bool:
        """Whether there is something to do."""
        return bool(self.arrivals or self.readings or self.engine.busy or self.ending)

    def turn(self, arrivals: list[Order]) -> None:
        """Let orders in, take one step, do one piece of a reading, tell of it all."""
        try:
            for order in arrivals:
                self.enter(order)
            if self.engine.busy:
                self.engine.step()
        except Exception as error:  # whatever a model or a tokeniser may raise
            self.trouble(error)
            self.end_all("failed", arrivals)
            self.engine = self.make()
        if self.readings:
            self.read_on()
        self.hand_over()

    def enter(self, order: Order) -> None:
        self.waiting.append(order)
        for number, request in enumerate(order.requests):
            if order.given_up:
                self.said.append((order, News(number, Piece("", (), "cancelled"))))
                continue
            tell = functools.partial(self.hear, order, number)
            order.answers[number] = answer = self.engine.submit(request, tell)
            if order.given_up:  # just now
                answer.cancelled = True

    def hear(self, order: Order, number: int, answer: Answer, piece: Piece) -> None:
        self.said.append((order, News(number, piece)))

    def end_all(self, finish: Any, arrivals: list[Order]) -> None:
        """End every answer, those that never got into the engine too."""
        engine = self.engine
        for answer in [*engine.waiting, *(reading.answer for reading in engine.reading), *engine.running]:
            answer.stream = None  # what its tokeniser still holds may be what failed
            answer.end(finish)
        for order in arrivals:
            missing = [number for number, answer in enumerate(order.answers) if answer is None]
            told = {news.number for other, news in self.said if other is order}
            self.said += [(order, News(n, Piece("", (), finish))) for n in missing if n not in told]
        self.hand_over()

    def read_on(self) -> None:
        """One piece of the first reading."""
        order, pieces, future = self.readings[0]
        order.started = True
        found, failed = None, None
        try:
            found = None if order.given_up else next(pieces)
        except Exception as error:
            self.trouble(error)
            failed = Refusal(500, "the model could not read the text")
        if found is not None or failed is not None or order.given_up:
            self.readings.popleft()
            self.call(settle, future, found, failed)

    def hand_over(self) -> None:
        """Let the event loop know what has been said, and which orders have begun."""
        idle = set(map(id, self.engine.waiting))
        begun = [o for o in self.waiting if any(a is not None and id(a) not in idle for a in o.answers)]
        self.waiting = [order for order in self.waiting if order not in begun and not order.given_up]
        for order in begun:
            order.started = True
        if self.said:
            said, self.said = self.said, []
            self.call(self.deliver, said)

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the event loop has gone
            self.ending = True


def settle(future: asyncio.Future[Any], found: Any, failed: Refusal | None) -> None:
    if future.done():
        return
    if failed is not None:
        future.set_exception(failed)
    elif found is not None:
        future.set_result(found)
    else:
        future.cancel()
