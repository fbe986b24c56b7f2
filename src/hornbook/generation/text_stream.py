"""Text out of tokens as they come: never half a character, never the beginning of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from hornbook.text.tokenizers import Tokenizer

UNFINISHED = "\ufffd"
"""What decoding makes of bytes that are not a whole character."""


class TextStream:
    """The text of tokens that come one by one. `push` and `close` return what can be shown from now on."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self.tokenizer, self.stops = tokenizer, tuple(stops)
        self.tokens: list[int] = []
        self.shown = ""
        self.stopped = False
        """A stop string has come; what follows is not text of the answer."""
        self.held = ""
        """Decoded, but it may be the beginning of a stop string."""
        self.begin = 0
        self.end = 0
        """Tokens before `end` are decoded. Those between `begin` and it are decoded again with each new one, since
        what a token looks like depends on the one before it (a word's first space, bytes of one character)."""

    def push(self, token: int) -> str:
        self.tokens.append(token)
        text = self.beyond()
        if not text or text.endswith(UNFINISHED):
            return ""
        self.begin, self.end = self.end, len(self.tokens)
        return self.settle(text)

    def close(self) -> str:
        """No more tokens come: whatever was held back."""
        if self.stopped:
            return ""
        text = self.settle(self.beyond()) + self.held
        self.shown, self.held, self.end = self.shown + self.held, "", len(self.tokens)
        return text

    def beyond(self) -> str:
        """The text of the tokens from `end` on."""
        before, whole = (self.tokenizer.decode(self.tokens[self.begin : n]) for n in (self.end, len(self.tokens)))
        return whole[len(before) :]

    def settle(self, text: str) -> str:
        """Add decoded text; return what no stop string can claim any more."""
        text, self.held = self.held + text, ""
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if places:
            text, self.stopped = text[: min(places)], True
        else:
            length = max((begun(text, stop) for stop in self.stops), default=0)
            text, self.held = text[: len(text) - length], text[len(text) - length :]
        self.shown += text
        return text


def begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
