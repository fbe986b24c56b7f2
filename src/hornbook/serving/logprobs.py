"""Tokens and their log-probabilities as OpenAI writes them: one form for completions, one for chat."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hornbook.generation.answers import Chosen
from hornbook.text.tokenizers import Tokenizer

NEVER = -9999.0
"""What stands for the logarithm of 0, which JSON does not have; OpenAI's number."""
Placed = tuple[int, Chosen]
"""Where in the text a token begins, and the token."""


class Spelling:
    """What tokens are called. Bytes that are no whole character show as \\xNN."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.names: dict[int, str] = {}

    def name(self, token: int) -> str:
        if token not in self.names:
            self.names[token] = self.spelled(token) or f"<{token}>"
        return self.names[token]

    def spelled(self, token: int) -> str:
        if self.tokenizer.token_bytes(token) is not None:
            return self.tokenizer.piece(token)
        once, twice = (self.tokenizer.decode([token] * count) for count in (1, 2))  # a text's first may lack its space
        return twice[len(once) :] or once

    def content(self, token: int) -> bytes:
        """What it adds to a text."""
        found = self.tokenizer.token_bytes(token)
        return self.spelled(token).encode() if found is None else found


class Places:
    """Where in a text its tokens begin, in characters, as they come."""

    def __init__(self, spelling: Spelling, offset: int = 0) -> None:
        self.spelling, self.offset = spelling, offset
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def of(self, chosen: Sequence[Chosen], end: int | None = None) -> Iterator[Placed]:
        """The next tokens; without those that begin at `end` or later, where a stop text was cut off."""
        for one in chosen:
            begin, self.offset = self.offset, self.offset + len(self.decoder.decode(self.spelling.content(one.token)))
            if end is None or begin < end:
                yield begin, one


def finite(nat: float | None) -> float:
    return NEVER if nat is None else max(nat, NEVER)


def completion_logprobs(spelling: Spelling, placed: Iterable[Placed]) -> dict[str, Any]:
    """The older form, a list a column."""
    form: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for begin, one in placed:
        form["tokens"].append(spelling.name(one.token))
        form["token_logprobs"].append(None if one.logprob is None else finite(one.logprob))
        form["top_logprobs"].append(None if one.logprob is None else table(spelling, one))
        form["text_offset"].append(begin)
    return form


def table(spelling: Spelling, one: Chosen) -> dict[str, float]:
    """Alternatives by name, the token itself among them; of two of one name, the likelier."""
    found: dict[str, float] = {}
    for token, nat in (*one.alternatives, (one.token, one.logprob)):
        found.setdefault(spelling.name(token), finite(nat))
    return found


def chat_logprobs(spelling: Spelling, placed: Iterable[Placed]) -> dict[str, Any]:
    """The newer form, an object a token."""
    content = []
    for _, one in placed:
        others = [row(spelling, token, nat) for token, nat in one.alternatives]
        content.append(row(spelling, one.token, one.logprob) | {"top_logprobs": others})
    return {"content": content, "refusal": None}


def row(spelling: Spelling, token: int, nat: float | None) -> dict[str, Any]:
    raw = spelling.content(token)
    return {"token": spelling.name(token), "logprob": finite(nat), "bytes": list(raw) if raw else None}
