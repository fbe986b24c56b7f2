"""What is asked of the engine, and what has become of it so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from hornbook.config import Sampling
from hornbook.generation.sampling import Place
from hornbook.generation.text_stream import TextStream

Finish = Literal["stop", "length", "cancelled", "error", "failed"]
"""The model or a stop string ended it; a limit did; the asker did; no token could follow; what ran it broke."""


@dataclass(frozen=True)
class Request:
    """One text to be continued."""

    prompt: Sequence[int]
    """Token ids."""
    tokens: int = 100
    """New tokens at most."""
    sampling: Sampling = field(default_factory=Sampling)
    sample: int = 0
    """Number of this sample among those of the same prompt and seed: each draws differently."""
    stops: tuple[str, ...] = ()
    """Text at which it ends, itself not part of the answer."""
    stop_tokens: frozenset[int] = frozenset()
    """Beside the model's own."""
    logprobs: int | None = None
    """So many likeliest alternatives to report with each token; None for no log-probabilities at all."""
    slide: bool = False
    """When the context is full, go on from its newer half; otherwise end there."""
    source: int = 0
    """So many of the prompt's first tokens are a source, which an encoder reads; the text begins behind them."""

    @property
    def text(self) -> Sequence[int]:
        """The tokens of the prompt that the answer continues."""
        return self.prompt[self.source :]


class Chosen(NamedTuple):
    """One new token, and how likely the model held it before any sampling setting."""

    token: int
    logprob: float | None = None
    """Nats."""
    alternatives: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens and their log-probabilities, likeliest first."""


class Piece(NamedTuple):
    """What one moment adds to an answer: text that is safe to show, and the tokens that have come since the last."""

    text: str
    chosen: tuple[Chosen, ...] = ()
    finish: Finish | None = None
    """Why it ends; only in its last piece."""


@dataclass(eq=False)
class Answer:
    """A request under way."""

    request: Request
    stream: TextStream | None
    """None where nobody asked for text."""
    tell: Callable[[Answer, Piece], None] | None = None
    """Called for every piece, by the thread that runs the engine."""
    new: list[int] = field(default_factory=list)
    """Token ids generated so far, without the one that ended it."""
    chosen: list[Chosen] = field(default_factory=list)
    finish: Finish | None = None
    cancelled: bool = False
    """Set by anybody, any time: the engine drops it at its next step."""
    reused: int = 0
    """Tokens of the prompt that were not read again."""
    window: list[int] = field(default_factory=list)
    """The tokens that the model sees: prompt and answer, or their newer half."""
    told: int = 0
    """How many of `chosen` have been told."""

    def __post_init__(self) -> None:
        self.window = list(self.request.prompt)

    @property
    def text(self) -> str:
        return self.stream.shown if self.stream else ""

    @property
    def source(self) -> int:
        """How many of the window's first tokens are a source. They are not part of the model's context."""
        return self.request.source

    @property
    def left(self) -> int:
        """New tokens that may still come."""
        return self.request.tokens - len(self.new)

    @property
    def place(self) -> Place:
        """Of its next token."""
        return Place(self.request.text, self.new, self.request.sampling, self.request.sample)

    def add(self, chosen: Chosen) -> None:
        """Take a new token, tell of the text that it makes, and finish where that is the end."""
        self.new.append(chosen.token)
        self.window.append(chosen.token)
        self.chosen.append(chosen)
        text = self.stream.push(chosen.token) if self.stream else ""
        if self.stream and self.stream.stopped:
            self.end("stop", text)
        elif not self.left:
            self.end("length", text)
        elif text or not self.stream:
            self.say(text)

    def end(self, finish: Finish, text: str = "") -> None:
        """No more tokens come."""
        if self.finish is None:
            text += self.stream.close() if self.stream else ""
            self.finish = finish
            self.say(text)

    def say(self, text: str) -> None:
        if self.tell is not None:
            new, self.told = tuple(self.chosen[self.told :]), len(self.chosen)
            self.tell(self, Piece(text, new, self.finish))
