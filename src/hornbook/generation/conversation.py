"""A conversation with a model: messages, the model's own template, and what fits into its context."""

from __future__ import annotations

from collections.abc import Generator

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
        self.left_out = 0
        """The oldest exchanges that the last prompt was without; `messages` has them all."""
        chat_ids(model.tokenizer, [{"role": "user", "content": "?"}])

    def instruct(self, system: str) -> None:
        """Say, or with nothing unsay, how the model is to behave."""
        self.messages = [m for m in self.messages if m["role"] != "system"]
        if system:
            self.messages.insert(0, {"role": "system", "content": system})

    def clear(self) -> None:
        """Forget what was said, but not how the model is to behave."""
        self.messages = [m for m in self.messages if m["role"] == "system"]
        self.left_out = 0

    def ask(self, text: str) -> Generator[str]:
        """The answer in pieces. What has come of it when the generator is closed or interrupted is remembered.

        UserError, and nothing remembered, where the message alone does not fit into the context.
        """
        question = {"role": "user", "content": text}
        ids, self.left_out = self.fitting(question)
        return self.answer(question, ids)

    def answer(self, question: Message, ids: list[int]) -> Generator[str]:
        """What the model says to a prompt. Question and answer become part of the conversation together."""
        s, said = self.settings, ""
        room = min(s.tokens, self.model.config.context - len(ids))
        self.answers += 1
        try:
            for piece in self.engine.stream(Request(ids, room, s, self.answers)):
                said += piece.text
                yield piece.text
        except KeyboardInterrupt:
            self.renew()
            raise
        finally:
            self.messages += [question, {"role": "assistant", "content": said}]

    def renew(self) -> None:
        """Another engine that knows what was read: a step that was interrupted may have left the old one half done."""
        old = self.engine
        self.engine = Engine(self.model, rows=1, drafter=old.drafter)
        self.engine.prefixes = old.prefixes

    def fitting(self, question: Message) -> tuple[list[int], int]:
        """The ids of the conversation with a new question, and how many of the oldest exchanges they are without.

        As few as leave a quarter of the context free, or as much as an answer may take, where that is less.
        """
        context = self.model.config.context
        most = context - min(self.settings.tokens, context // 4)
        exchanges = sum(m["role"] == "user" for m in self.messages)
        left_out = min(self.left_out, exchanges)
        ids = self.ids(question, left_out)
        while left_out and len(ids) <= most and len(more := self.ids(question, left_out - 1)) <= most:
            ids, left_out = more, left_out - 1
        while len(ids) > most:
            if left_out == exchanges:
                raise UserError(
                    f"that is {len(ids)} tokens with the template, and of the context of {context} "
                    f"{most} are for what is said: say less"
                )
            left_out += 1
            ids = self.ids(question, left_out)
        return ids, left_out

    def ids(self, question: Message, left_out: int) -> list[int]:
        """The conversation with a new question, without so many of its oldest exchanges."""
        first = len([m for m in self.messages if m["role"] == "system"])
        said = [*self.messages[:first], *self.messages[first + 2 * left_out :], question]
        return chat_ids(self.model.tokenizer, said)

    def undo(self) -> str:
        """Forget the last question and its answer; the question, or nothing where there is none."""
        while self.messages and self.messages[-1]["role"] != "system":
            if (last := self.messages.pop())["role"] == "user":
                return last["content"]
        return ""
