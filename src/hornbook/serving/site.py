"""What a server holds while it runs: the models, the limits, the figures, the requests under way."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from hornbook import __version__, machine
from hornbook.config import Serve
from hornbook.errors import UserError
from hornbook.inspection.lens import attention_size, depths
from hornbook.layers.model import LanguageModel
from hornbook.serving.keys import Keys
from hornbook.serving.logprobs import Spelling
from hornbook.serving.logs import Log
from hornbook.serving.metrics import Metrics
from hornbook.serving.orders import Order
from hornbook.serving.refusals import Refusal, invalid
from hornbook.serving.worker import Worker

FIGURES = (
    ("hornbook_requests_total", "counter", "Requests, by path and status; 499 where the client went away."),
    ("hornbook_request_seconds", "histogram", "From a request's first line to the end of its answer."),
    ("hornbook_first_token_seconds", "histogram", "From a request's first line to its first token."),
    ("hornbook_tokens_total", "counter", "Tokens of prompts, those not read again, and new ones."),
    ("hornbook_answers_running", "gauge", "Answers that the engine works on."),
    ("hornbook_answers_waiting", "gauge", "Answers that wait for their turn."),
    ("hornbook_rows", "gauge", "Answers that the engine works on at most."),
    ("hornbook_engine_up", "gauge", "1 while the model's engine runs."),
    ("hornbook_requests_open", "gauge", "Requests under way."),
    ("hornbook_resident_bytes", "gauge", "Memory of the process."),
)


@dataclass(eq=False)
class Case:
    """One HTTP request, from its first line to its last."""

    method: str
    path: str
    client: str
    id: str = field(default_factory=lambda: "req_" + secrets.token_hex(12))
    began: float = field(default_factory=time.monotonic)
    status: int = 0
    """What was answered; 499 where the client went away first."""
    complete: bool = False
    """The whole answer has been handed over to be sent."""
    orders: list[Order] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    """What the log says of it beside."""

    def first_token(self) -> None:
        self.notes.setdefault("first_token_seconds", round(time.monotonic() - self.began, 4))


@dataclass(eq=False)
class Served:
    """One model and its worker."""

    name: str
    model: LanguageModel
    worker: Worker
    taught: Mapping[str, Any] = field(default_factory=dict)
    """The settings by which it was finetuned, if it was."""

    def __post_init__(self) -> None:
        self.spelling = Spelling(self.model.tokenizer)
        template = self.model.tokenizer.config.get("chat_template")
        self.chat = isinstance(template, str) and not self.model.config.labels
        self.context = self.model.config.context
        self.lens, self.attention = inside(self.model)


def inside(model: LanguageModel) -> tuple[bool, dict[str, int] | None]:
    """Whether there are layers to look at, and what there is of attention."""
    lens, attention = False, None
    with contextlib.suppress(UserError):
        model.require_tokens()
        lens = bool(depths(model))
    with contextlib.suppress(UserError):
        attention = dict(zip(("layers", "heads"), attention_size(model), strict=True))
    return lens, attention


class Site:
    """Everything that requests share."""

    def __init__(self, served: Mapping[str, Served], settings: Serve, keys: Keys, log: Log) -> None:
        self.served, self.settings, self.keys, self.log = dict(served), settings, keys, log
        self.metrics = Metrics()
        for figure in FIGURES:
            self.metrics.describe(*figure)
        self.began = int(time.time())
        self.fingerprint = f"hornbook-{__version__}"
        self.cases: set[Case] = set()
        self.draining = False
        self.body_bytes = 0
        """Of all bodies that are being received."""
        self.pool = ThreadPoolExecutor(2, "hornbook-text")
        """For what would hold up the event loop: cutting long texts, rendering chat templates."""

    def find(self, name: str | None) -> Served:
        """The model that a request names."""
        if name is None and len(self.served) == 1:
            return next(iter(self.served.values()))
        names = ", ".join(self.served)
        if name is None:
            raise invalid(f"model is missing: there are {names}", "model")
        if name not in self.served:
            raise Refusal(404, f"there is no model {name!r}: there are {names}", "model_not_found", "model")
        return self.served[name]

    def order(self, case: Case, served: Served, count: int) -> Order:
        """Places for `count` answers, freed at the end of the request."""
        case.notes["model"] = served.name
        order = Order(served.worker, count, self.settings.queue_timeout, self.settings.timeout)
        case.orders.append(order)
        return order

    def start(self) -> None:
        """Called on the event loop before the first request."""
        for served in self.served.values():
            served.worker.start()

    def drain(self) -> None:
        """Let what is under way come to its end, but no longer than the grace period; take nothing new."""
        self.draining = True
        asyncio.get_running_loop().call_later(self.settings.grace, self.break_off)

    def break_off(self) -> None:
        for case in self.cases:
            for order in case.orders:
                order.fail(Refusal(503, "the server is shutting down", "shutting_down"))

    def stop(self) -> None:
        self.break_off()
        for served in self.served.values():
            served.worker.stop()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def close(self, case: Case) -> None:
        """A request has ended, however that came: free its places, count it, write its line."""
        self.cases.discard(case)
        for order in case.orders:
            order.close()
            self.count(case, order)
        seconds = time.monotonic() - case.began
        path = case.path if case.path in KNOWN else "other"
        self.metrics.count("hornbook_requests_total", path=path, status=str(case.status))
        self.metrics.observe("hornbook_request_seconds", seconds, path=path)
        level = "error" if case.status >= 500 else "info"
        line = {"id": case.id, "client": case.client, "method": case.method, "path": case.path[:200]}
        self.log("request", level, **line, status=case.status, seconds=round(seconds, 4), **case.notes)

    def count(self, case: Case, order: Order) -> None:
        """The tokens of an order, however far it has come."""
        answers, notes = [answer for answer in order.answers if answer is not None], case.notes
        notes["new_tokens"] = sum(len(answer.new) for answer in answers)
        notes["cached_tokens"] = sum(answer.reused for answer in answers)
        notes["finish"] = [answer.finish for answer in answers]
        for kind in ("prompt", "cached", "new"):
            count = notes.get(f"{kind}_tokens", 0)
            self.metrics.count("hornbook_tokens_total", count, model=notes["model"], kind=kind)
        if "first_token_seconds" in notes:
            self.metrics.observe("hornbook_first_token_seconds", notes["first_token_seconds"], model=notes["model"])

    def figures(self) -> str:
        """What /metrics says now."""
        metrics = self.metrics
        for name, served in self.served.items():
            engine, worker = served.worker.engine, served.worker
            running = len(engine.running) + len(engine.reading)
            metrics.set("hornbook_answers_running", running, model=name)
            metrics.set("hornbook_answers_waiting", max(0, worker.open - running), model=name)
            metrics.set("hornbook_rows", engine.rows, model=name)
            metrics.set("hornbook_engine_up", worker.alive, model=name)
        metrics.set("hornbook_requests_open", len(self.cases))
        metrics.set("hornbook_resident_bytes", machine.resident_memory())
        return metrics.text()


KNOWN = {"/", "/health", "/metrics", "/openapi.json", "/v1/models", "/v1/inspect", "/v1/classify"}
KNOWN |= {"/v1/completions", "/v1/chat/completions", "/v1/chat/render"}
"""Paths that are counted by name."""
