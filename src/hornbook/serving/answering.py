"""From an order's news to what is sent: one JSON object, or server-sent events."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hornbook.generation.answers import Chosen, Finish, Request
from hornbook.serving.logprobs import Placed, Places, Spelling
from hornbook.serving.orders import News, Order
from hornbook.serving.prompts import Prompt
from hornbook.serving.refusals import Refusal, as_json, invalid, json_response
from hornbook.serving.requests import Asked
from hornbook.serving.scores import scored
from hornbook.serving.site import Case, Served, Site

Json = dict[str, Any]


class Style(Protocol):
    """How completions or chat write what both have."""

    prefix: str
    whole: str
    piece: str

    def logprobs(self, spelling: Spelling, placed: Sequence[Placed]) -> Json: ...

    def choice(self, text: str, logprobs: Json | None, finish: str | None) -> Json:
        """A whole answer, without its index."""

    def opening(self, text: str, logprobs: Json | None) -> Json | None:
        """What a stream begins with, if with anything."""

    def bit(self, text: str, logprobs: Json | None, finish: str | None) -> Json:
        """A further piece of a stream."""


@dataclass
class Part:
    """One answer as it grows."""

    places: Places | None
    """None where nobody asked for log-probabilities."""
    stops: bool
    """Whether it may end at a stop text, whose tokens are not told."""
    text: str = ""
    length: int = 0
    """Characters, with an echoed prompt."""
    placed: list[Placed] = field(default_factory=list)
    finish: Finish | None = None

    def add(self, text: str, chosen: Sequence[Chosen], finish: Finish | None) -> list[Placed]:
        self.text += text
        self.length += len(text)
        self.finish = finish or self.finish
        if self.places is None:
            return []
        new = list(self.places.of(chosen, self.length if self.stops and finish == "stop" else None))
        self.placed += new
        return new


@dataclass
class Job:
    """One request whose prompts are known and whose places are taken."""

    site: Site
    case: Case
    served: Served
    asked: Asked
    style: Style
    order: Order
    prompts: list[Prompt]
    tokens: int
    """New ones, at most."""
    alternatives: int | None
    echo: bool = False

    async def answer(self) -> Response:
        """All at once, or a stream. Refusal until the first token has come."""
        given = sum(len(prompt.ids) for prompt in self.prompts)
        self.case.notes |= {"stream": bool(self.asked.stream), "prompt_tokens": given}
        if self.site.settings.log_prompts:
            decode = self.served.model.tokenizer.decode
            self.case.notes["prompts"] = [prompt.text or decode(prompt.ids) for prompt in self.prompts]
        requests = self.requests()
        self.order.check(requests)
        scores = await self.scores()
        if self.tokens:
            self.order.place(requests)
        self.parts = [self.part(prompt) for prompt in self.prompts for _ in range(self.asked.choices)]
        self.frame: Json = {
            "id": f"{self.style.prefix}-{secrets.token_hex(12)}",
            "object": self.style.piece if self.asked.stream else self.style.whole,
            "created": int(time.time()),
            "model": self.served.name,
            "system_fingerprint": self.site.fingerprint,
        }
        if not self.asked.stream:
            return await self.at_once(scores)
        news = self.order.news()
        first: list[News] = await anext(news, [])
        self.case.first_token()
        return Events(self.stream(scores, first, news))

    def requests(self) -> list[Request]:
        """Prompt by prompt, sample by sample, with one `Sampling` for all."""
        sampling, a = self.asked.sampling(), self.asked
        return [
            Request(
                prompt.ids, self.tokens, sampling, sample, a.stops, logprobs=self.alternatives, source=prompt.source
            )
            for prompt in self.prompts
            for sample in range(a.choices)
        ]

    async def scores(self) -> list[list[Placed]]:
        """The tokens of each prompt with their log-probabilities, where they are to be echoed."""
        if not self.echo or self.alternatives is None:
            return [[] for _ in self.prompts]
        if any(prompt.source for prompt in self.prompts):
            raise invalid(
                "echo with logprobs scores a text, and this model reads prompts, it does not write them", "echo"
            )
        model, most = self.served.model, self.alternatives
        found = [await self.order.read(scored(model, prompt.ids, most)) for prompt in self.prompts]
        return [list(Places(self.served.spelling).of(chosen)) for chosen in found]

    def part(self, prompt: Prompt) -> Part:
        before = len(prompt.text) if self.echo else 0
        places = None if self.alternatives is None else Places(self.served.spelling, before)
        part = Part(places, bool(self.asked.stops), length=before)
        if not self.tokens:
            part.finish = "length"
        return part

    async def at_once(self, scores: list[list[Placed]]) -> Response:
        async for batch in self.order.news():
            self.case.first_token()
            for number, piece in batch:
                self.parts[number].add(*piece)
        choices = []
        for number, part in enumerate(self.parts):
            prompt, scored = self.prompts[number // self.asked.choices], scores[number // self.asked.choices]
            text = prompt.text + part.text if self.echo else part.text
            choice = self.style.choice(text, self.logprobs([*scored, *part.placed]), part.finish)
            choices.append({"index": number, **choice})
        return json_response({**self.frame, "choices": choices, "usage": self.usage()})

    async def stream(
        self, scores: list[list[Placed]], first: list[News], later: AsyncIterator[list[News]]
    ) -> AsyncIterator[bytes]:
        for number in range(len(self.parts)):
            prompt, scored = self.prompts[number // self.asked.choices], scores[number // self.asked.choices]
            begun = self.style.opening(prompt.text if self.echo else "", self.logprobs(scored))
            if begun is not None:
                yield self.event(number, begun)
            if not self.tokens:
                yield self.event(number, self.style.bit("", self.logprobs([]), "length"))
        for number, bit in self.bits(first):
            yield self.event(number, bit)
        async for batch in later:
            for number, bit in self.bits(batch):
                yield self.event(number, bit)
        if self.asked.wants_usage:
            yield data({**self.frame, "choices": [], "usage": self.usage()})

    def bits(self, batch: list[News]) -> list[tuple[int, Json]]:
        """What a batch of news says of each answer, as one piece."""
        found = []
        for number in dict.fromkeys(news.number for news in batch):
            pieces = [news.piece for news in batch if news.number == number]
            text, chosen = "".join(p.text for p in pieces), [one for p in pieces for one in p.chosen]
            new = self.parts[number].add(text, chosen, pieces[-1].finish)
            found.append((number, self.style.bit(text, self.logprobs(new), pieces[-1].finish)))
        return found

    def event(self, number: int, choice: Json) -> bytes:
        """A piece of one answer between what is the same in all; most hold a single token."""
        before, after = self.same
        return before + as_json({"index": number, **choice}) + after

    @functools.cached_property
    def same(self) -> tuple[bytes, bytes]:
        """What comes before each piece and behind it."""
        usage = b',"usage":null' if self.asked.wants_usage else b""
        return b"data: " + as_json(self.frame)[:-1] + b',"choices":[', b"]" + usage + b"}\n\n"

    def logprobs(self, placed: Sequence[Placed]) -> Json | None:
        return None if self.alternatives is None else self.style.logprobs(self.served.spelling, placed)

    def usage(self) -> Json:
        """Counted at the end. Several choices read their prompt together: it counts once."""
        answers = [answer for answer in self.order.answers if answer is not None]
        given, new = self.case.notes["prompt_tokens"], sum(len(answer.new) for answer in answers)
        cached = sum(answer.reused for answer in answers[:: self.asked.choices])
        return {
            "prompt_tokens": given,
            "completion_tokens": new,
            "total_tokens": given + new,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


def data(content: Json) -> bytes:
    """One server-sent event."""
    return b"data: " + as_json(content) + b"\n\n"


class Events(Response):
    """Server-sent events, with an error among them where it comes too late for a status."""

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(None, 200, headers, "text/event-stream")
        del self.headers["content-length"]
        self.events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for event in self.events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        except Refusal as refusal:
            scope["hornbook"].notes["error"] = refusal.message
            await send({"type": "http.response.body", "body": data(refusal.error), "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})
