"""Continuous batching (Yu et al. 2022, Orca): requests join and leave at every step, one token a step for all that run.

A request waits until there is room, reads its prompt in chunks (one a step, so that nobody else waits for long), and
then shares each pass through the model with all others. One thread submits and steps; `Answer.cancelled` may be set by
any.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hornbook import machine
from hornbook.errors import UserError
from hornbook.generation.answers import Answer, Chosen, Piece, Request
from hornbook.generation.drafts import Drafter
from hornbook.generation.prefixes import WORTH, Prefixes, Text, shared
from hornbook.generation.rows import filled_up, newer_half
from hornbook.generation.sampling import STUCK, ends, next_tokens
from hornbook.generation.text_stream import TextStream
from hornbook.layers.model import Cache, LanguageModel

ROUND = 64
"""Caches have room for a multiple of so many tokens."""


@dataclass(eq=False)
class Reading:
    """An answer whose prompt, or half of whose full context, is being read."""

    answer: Answer
    cache: Cache | None = None
    read: int = 0
    """Tokens of the answer's window that are in the cache."""

    @property
    def text(self) -> Text:
        return Text(self.answer.window, self.answer.source)

    @property
    def source(self) -> int:
        """How many of the next tokens are a source."""
        return max(0, self.answer.source - self.read)

    def part(self, chunk: int) -> list[int]:
        """The next tokens: at most a chunk, but a source in one piece."""
        return self.answer.window[self.read : self.read + max(chunk, self.source)]


class Engine:
    """Answers to requests, from one model. `rows` run at a time at most, with caches of at most `memory` bytes."""

    def __init__(
        self,
        model: LanguageModel,
        rows: int = 16,
        memory: int | None = None,
        chunk: int | None = None,
        drafter: Drafter | None = None,
        kept: int = 0,
    ) -> None:
        if not model.causal:
            raise UserError(f"a model of the family {model.config.family} fills in gaps; it cannot continue a text")
        model.require_tokens()
        self.model, self.rows, self.drafter, self.device = model, rows, drafter, model.device
        self.chunk = chunk or (256 if self.device.type == "cpu" else 2048)
        """Tokens of prompts in one pass."""
        self.memory = machine.available_memory(self.device) // 2 if memory is None else memory
        """Bytes for the caches of all rows."""
        self.waiting: deque[Answer] = deque()
        self.reading: list[Reading] = []
        self.running: list[Answer] = []
        """In the order of the cache's rows, which hold all of each answer's window but its last token."""
        self.cache: Cache | None = None
        self.held = 0, 0
        """Rows and tokens that it has memory for."""
        self.prefixes = Prefixes(kept)
        """What finished answers have left behind, in at most `kept` bytes."""
        one, two = (model.make_cache(1, length).bytes for length in (1, 2))
        self.row_bytes, self.token_bytes = one - (two - one), two - one

    def submit(self, request: Request, tell: Callable[[Answer, Piece], None] | None = None) -> Answer:
        """Let a request wait for its turn. UserError where it can never be answered."""
        self.check(request)
        tokenizer = getattr(self.model, "tokenizer", None)
        answer = Answer(request, TextStream(tokenizer, request.stops) if tokenizer is not None else None, tell)
        self.waiting.append(answer)
        return answer

    def check(self, request: Request) -> None:
        length, context, vocab = len(request.text), self.model.config.context, self.model.config.vocab
        if request.source and not self.model.reads_source:
            raise UserError(f"a model of the family {self.model.config.family} has no encoder to read a source with")
        if request.source > context:
            raise UserError(f"the source has {request.source} tokens and the context {context}: shorten the source")
        if not length:
            raise UserError("the prompt is empty, and this model has no token that opens a text")
        if length > context:
            raise UserError(f"the prompt has {length} tokens and the context {context}: shorten the prompt")
        if not request.slide and length + request.tokens > context:
            raise UserError(
                f"{length} tokens of prompt and {request.tokens} new ones do not fit into the context of {context}: "
                "shorten the prompt, or ask for fewer"
            )
        strange = [i for i in (*request.prompt, *request.sampling.logit_bias) if not 0 <= i < vocab]
        if strange:
            raise UserError(f"token id {strange[0]}: the vocabulary has 0 to {vocab - 1}")
        if (needed := self.bytes(1, self.length(request))) > self.memory:
            raise UserError(
                f"a cache for {self.length(request)} tokens takes {needed / 1e6:.0f} MB, and {self.memory / 1e6:.0f} "
                "are set aside for caches: shorten the prompt, or ask for fewer tokens"
            )

    @property
    def longest(self) -> int:
        """Tokens that the cache of one row may hold."""
        return (self.memory - self.row_bytes) // max(1, self.token_bytes) // ROUND * ROUND

    def length(self, request: Request) -> int:
        """Tokens that its cache must hold."""
        needed = request.source + min(self.model.config.context, len(request.text) + request.tokens)
        return -(-needed // ROUND) * ROUND

    def bytes(self, rows: int, length: int) -> int:
        """Memory of a cache. A growing one takes room for the next power of two of rows."""
        rows = 1 << (rows - 1).bit_length()
        return rows * (self.row_bytes + length * self.token_bytes)

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.reading or self.running)

    @torch.inference_mode()
    def step(self) -> None:
        """Let in who fits, read one chunk of prompts, and give everybody who runs a token or more."""
        self.drop_cancelled()
        self.admit()
        if self.reading:
            self.read()
        if self.running:
            self.advance()
            self.leave()

    def drop_cancelled(self) -> None:
        for answer in [*self.waiting, *(reading.answer for reading in self.reading), *self.running]:
            if answer.cancelled:
                answer.end("cancelled")
        self.waiting = deque(answer for answer in self.waiting if answer.finish is None)
        self.reading = [reading for reading in self.reading if reading.answer.finish is None]
        self.leave()

    def admit(self) -> None:
        """First come, first served."""
        while self.waiting and len(self.active) < self.rows:
            longest = max(self.length(answer.request) for answer in (*self.active, self.waiting[0]))
            if self.active and self.bytes(len(self.active) + 1, longest) > self.memory:
                return
            self.reading.append(Reading(self.waiting.popleft()))

    @property
    def active(self) -> list[Answer]:
        return [*(reading.answer for reading in self.reading), *self.running]

    def read(self) -> None:
        """Read a chunk of the first prompt, or the first few as a whole; whose prompt is read runs, a token chosen."""
        group = self.together()
        parts = [reading.part(self.chunk) for reading in group]
        lengths = torch.tensor([len(part) for part in parts], device=self.device)
        tokens, segments = filled_up(parts, self.device, [reading.source for reading in group])
        cache = group[0].cache
        assert cache is not None
        cache.reserve(max(len(reading.answer.window) for reading in group))
        for reading in group[1:]:
            assert reading.cache is not None
            cache.join(reading.cache)
        hidden = self.model.hidden(tokens, cache, segments)  # (B,T,D)
        group[0].read += len(parts[0])
        if len(group) == 1 and group[0].read < len(group[0].answer.window):
            return
        self.join([reading.answer for reading in group], cache)
        self.reading = self.reading[len(group) :]  # now: whatever fails before, no answer is lost sight of
        last = hidden[torch.arange(len(group), device=self.device), lengths - 1]
        self.choose([reading.answer for reading in group], self.model.head(last))
        self.leave()

    def together(self) -> list[Reading]:
        """The first prompts that are read in one pass, each with its cache: as many as fit into a chunk, filled up.

        One that begins as another of them does waits, as it will find its beginning read.
        """
        group: list[Reading] = []
        longest = 0
        for reading in self.reading:
            if any(shared(reading.text, other.text) >= WORTH for other in group):
                break
            if reading.cache is None:
                self.open(reading)
            longest = max(longest, len(reading.answer.window) - reading.read)
            if group and longest * (len(group) + 1) > self.chunk:
                break
            group.append(reading)
        return group

    def open(self, reading: Reading) -> None:
        """A cache for the answer's prompt, with what is already known of it from others."""
        answer = reading.answer
        running = [(Text(a.window[:-1], a.source), self.cache, row) for row, a in enumerate(self.running)]
        reading.cache, reading.read = self.prefixes.find(Text(answer.window[:-1], answer.source), running)
        if reading.cache is None:
            reading.cache = self.model.make_cache(1, len(answer.window))
        reading.cache.reserve(len(answer.window))
        answer.reused = max(answer.reused, reading.read)

    def join(self, answers: Sequence[Answer], cache: Cache) -> None:
        room = self.make_room(answers)
        room.join(cache)
        self.running.extend(answers)

    def make_room(self, answers: Sequence[Answer]) -> Cache:
        """The cache, with room for these beside who runs; made anew where the most rows and the longest text there have
        been, which were never together, would take more than `memory`."""
        coming = [*self.running, *answers]
        rows, length = 1 << (len(coming) - 1).bit_length(), max(self.length(answer.request) for answer in coming)
        most = max(rows, self.held[0]), max(length, self.held[1])
        kept: list[Cache] = []
        if self.cache is not None and self.bytes(*most) > self.memory:
            kept, self.cache = [self.cache.copy(row) for row in range(len(self.running))], None
            most = rows, length
        if self.cache is None:
            self.cache = self.model.make_cache(1, ROUND)
            self.cache.select(torch.zeros(0, dtype=torch.int64, device=self.device))
        self.held = most
        self.cache.reserve(length)
        for row in kept:
            self.cache.join(row)
        return self.cache

    def advance(self) -> None:
        """One pass: the last token of every row, and behind it what a drafter guesses; each row gets its tokens."""
        assert self.cache is not None
        guesses = [self.guess(answer) for answer in self.running]
        rows = [[answer.window[-1], *guess] for answer, guess in zip(self.running, guesses, strict=True)]
        width = max(map(len, rows))
        tokens, real = filled_up(rows, self.device)
        logits = self.model.head(self.model.hidden(tokens, self.cache, real))  # (B,W,V)
        right = list(range(len(rows)))  # rows whose guesses have all come true so far
        for place in range(width):
            answers = [self.running[i] for i in right]
            found = self.choose(answers, logits[right, place])
            right = [
                i
                for i, token in zip(right, found, strict=True)
                if self.running[i].finish is None and guesses[i][place : place + 1] == [token]
            ]
            if not right:
                break
        if width > 1:
            self.cache.rewind(torch.tensor([len(a.window) - 1 for a in self.running], device=self.device))

    def guess(self, answer: Answer) -> list[int]:
        """Tokens that may come next, as many as can be used."""
        if self.drafter is None:
            return []
        room = min(answer.left - 1, self.model.config.context + answer.source - len(answer.window))
        return self.drafter.guess(answer, room) if room > 0 else []

    def choose(self, answers: Sequence[Answer], logits: Tensor) -> list[int]:
        """The next token of each answer from logits (B,V), taken by it, or its end."""
        tokens = next_tokens(logits, [answer.place for answer in answers], self.model.config)
        nats = logits.float().log_softmax(-1) if any(a.request.logprobs is not None for a in answers) else None
        closing = ends(self.model.config)
        for row, (answer, token) in enumerate(zip(answers, tokens, strict=True)):
            if token < 0:
                answer.end("error")
            elif token in closing or token in answer.request.stop_tokens:
                answer.end("stop")
            else:
                answer.add(described(token, answer.request.logprobs, None if nats is None else nats[row]))
        return tokens

    def leave(self) -> None:
        """Take out rows that have ended, and those whose context is full: these read its newer half again."""
        context = self.model.config.context
        full = [a for a in self.running if a.finish is None and len(a.window) - a.source > context]
        stay = [row for row, a in enumerate(self.running) if a.finish is None and a not in full]
        if len(stay) == len(self.running):
            return
        assert self.cache is not None
        for row, answer in enumerate(self.running):
            if answer.finish in ("stop", "length"):
                self.prefixes.keep(Text(answer.window[:-1], answer.source), self.cache, row)
        for answer in full:
            answer.window = newer_half(answer.window, answer.source, context)
            self.reading.append(Reading(answer))
        order = compacted(stay)
        self.running = [self.running[row] for row in order]
        self.cache.select(torch.tensor(order, dtype=torch.int64, device=self.device))
        self.cache.rewind(self.cache.lengths)

    def stream(self, request: Request) -> Iterator[Piece]:
        """The pieces of one answer as they come. UserError where the model fails."""
        pieces: deque[Piece] = deque()
        answer = self.submit(request, lambda _, piece: pieces.append(piece))
        try:
            while answer.finish is None:
                self.step()
                while pieces:
                    yield pieces.popleft()
            if answer.finish == "error":
                raise UserError(f"{STUCK}: it cannot go on")
            yield from pieces
        finally:
            answer.cancelled = True


def compacted(stay: Sequence[int]) -> list[int]:
    """Rows that stay, in an order in which as many as can be keep their places: the last ones fill the gaps."""
    count = len(stay)
    movers = iter(row for row in stay if row >= count)
    held = set(stay)
    return [row if row in held else next(movers) for row in range(count)]


def described(token: int, wanted: int | None, nats: Tensor | None) -> Chosen:
    """A token with its log-probability out of (V,), and `wanted` alternatives; without where they are not wanted."""
    if wanted is None or nats is None:
        return Chosen(token)
    best = nats.topk(min(wanted, len(nats)))
    return Chosen(token, float(nats[token]), tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)))
