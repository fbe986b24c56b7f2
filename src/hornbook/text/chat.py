"""Messages -> ids, by the chat template that a tokeniser brings along.

A template is a program in Jinja's language from whoever made the model: it runs in Jinja's immutable sandbox, with
small ranges, no products of texts, and no more output than the longest context could hold. What the messages say is
text: it is cut by itself, so that a special token's name inside a message stays characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hornbook.errors import UserError
from hornbook.text.tokenizers import Tokenizer

Message = dict[str, str]
"""role ('system', 'user', 'assistant') and content."""

LONGEST_TEMPLATE, LONGEST_TEXT, LONGEST_RANGE = 100_000, 4_000_000, 10_000
"""Characters, characters, steps."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as chat templates expect it, without the operators that could fill the memory."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Sums that are not too long; products and remainders of numbers only, and no powers."""
        if operator == "+":
            if isinstance(left, str | list) and isinstance(right, str | list) and len(left) + len(right) > LONGEST_TEXT:
                raise TemplateError("it puts together a text without end")
        elif operator == "**" or not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise TemplateError(f"'{operator}' is not possible here between {left!r:.20} and {right!r:.20}")
        return super().call_binop(context, operator, left, right)


def chat_ids(tokenizer: Tokenizer, messages: Sequence[Message], answer: bool = True) -> list[int]:
    """The ids of a conversation; with `answer`, up to where the model's next message begins.

    Raises UserError where the tokeniser has no template, or a template that does not work.
    """
    ids: list[int] = []
    for text, foreign in parts(tokenizer, messages, answer):
        ids += tokenizer.encode(text) if foreign else tokenizer.encode_specials(text)
    return ids


def parts(tokenizer: Tokenizer, messages: Sequence[Message], answer: bool) -> Iterator[tuple[str, bool]]:
    """The rendered conversation cut into (text, whether a message said it)."""
    # The template sees marks in the place of what was said, and may not look into it.
    said = [message["content"] for message in messages]
    marked = [{**message, "content": f"\ue000{number}\ue001"} for number, message in enumerate(messages)]
    rendered = render(tokenizer, marked, answer)
    for number, part in enumerate(re.split("\ue000(\\d+)\ue001", rendered)):
        if part:
            yield (said[int(part)], True) if number % 2 else (part, False)


def render(tokenizer: Tokenizer, messages: Sequence[Message], answer: bool) -> str:
    """What the template makes of some messages."""
    template = tokenizer.config.get("chat_template")
    if not isinstance(template, str):
        raise UserError("this model has no chat template: it continues texts, it was not taught to converse")
    if len(template) > LONGEST_TEMPLATE:
        raise UserError(f"the chat template has {len(template):,} characters: that is none")
    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "range": limited_range,
    }
    names = {f"{key}_token": name or "" for key, name in tokenizer.specials._asdict().items()}
    text = ""
    try:
        stream = environment.from_string(template).generate(
            messages=list(messages), add_generation_prompt=answer, **names
        )
        for piece in stream:
            text += piece
            if len(text) > LONGEST_TEXT:
                raise TemplateError("it writes without end")
    except (TemplateError, ArithmeticError, TypeError, ValueError, RecursionError, LookupError) as error:
        raise UserError(f"the chat template does not work: {(str(error) or repr(error)).splitlines()[0]}") from None
    return text


def refuse(message: str) -> NoReturn:
    """What templates call for a conversation that they cannot hold."""
    raise TemplateError(str(message))


def limited_range(*bounds: int) -> range:
    """`range`, of at most LONGEST_RANGE steps."""
    found = range(*bounds)
    if len(found) > LONGEST_RANGE:
        raise TemplateError(f"a range of {len(found)} steps")
    return found
