"""A conversation with a model: messages, the model's own template, and what fits into its context."""

from __future__ import annotations

from collections.abc import Iterator

from hornbook.config import Chat
from hornbook.errors import UserError
from hornbook.generation.answers import Request
from hornbook.generation.drafts import drafter
from hornbook.generation.engine import Engine
from hornbook.layers.model import LanguageModel
from hornbook.text.chat import Message, chat_ids

KEPT = 500_000_000
"""Bytes for caches of what was said before, so that only what is new has to be read."""


class Conversation:
    """What was said, and the model that answers. Raises UserError for a model without a chat template."""

    def __init__(self, model: LanguageModel, settings: Chat) -> None:
        self.model, self.settings = model, settings
        self.engine = Engine(model, rows=1, drafter=drafter(settings.draft, model), kept=KEPT)
        self.messages: list[Message] = []
        self.instruct(settings.system)
        self.answers = 0
        """Given so far; each draws differently."""
        chat_ids(model.tokenizer, [{"role": "user", "content": "?"}])

    def instruct(self, system: str) -> None:
        """Say, or with nothing unsay, how the model is to behave."""
        self.messages = [m for m in self.messages if m["role"] != "system"]
        if system:
            self.messages.insert(0, {"role": "system", "content": system})

    def ask(self, text: str) -> Iterator[str]:
        """The answer in pieces. What has come of it when the iterator is closed stays part of the conversation.

        UserError, and nothing remembered, where the message alone does not fit into the context.
        """
        self.messages.append({"role": "user", "content": text})
        try:
            ids = self.fitting()
        except UserError:
            self.messages.pop()
            raise
        s, said = self.settings, ""
        room = min(s.tokens, self.model.config.context - len(ids))
        self.answers += 1
        try:
            for piece in self.engine.stream(Request(ids, room, s, self.answers)):
                said += piece.text
                yield piece.text
        finally:
            self.messages.append({"role": "assistant", "content": said})

    def fitting(self) -> list[int]:
        """The ids of the conversation; its oldest exchanges are forgotten until a quarter of the context is free.

        Or as much as an answer may take, where that is less.
        """
        context = self.model.config.context
        room = min(self.settings.tokens, context // 4)
        while len(ids := chat_ids(self.model.tokenizer, self.messages)) > context - room:
            first = int(self.messages[0]["role"] == "system")
            if len(self.messages) - first < 3:
                raise UserError(
                    f"that is {len(ids)} tokens with the template, and of the context of {context} "
                    f"{context - room} are for what is said: say less"
                )
            del self.messages[first : first + 2]
        return ids

    def undo(self) -> str:
        """Forget the last question and its answer; the question, or nothing where there is none."""
        while self.messages and self.messages[-1]["role"] != "system":
            if (last := self.messages.pop())["role"] == "user":
                return last["content"]
        return ""
