"""Messages -> ids, by the chat template that a tokeniser brings along.

The template is rendered in a process of its own (`rendering.py`). It sees marks in the place of what was said, so that
only its own special tokens become ids: a special token's name inside a message stays characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from hornbook.errors import UserError
from hornbook.text.chat_templates import PLAIN
from hornbook.text.rendering import render
from hornbook.text.tokenizers import Tokenizer

Message = dict[str, str]
"""role ('system', 'user', 'assistant') and content."""

OPEN, CLOSE = "\ue000", "\ue001"
"""Characters for private use around a mark."""
MARK = re.compile(f"{OPEN}(\\d+[ja]{{0,2}}){CLOSE}")
"""The number of a message, and how the template makes it JSON (`to_json` of `chat_template.py`)."""
LONGEST = 16_000_000
"""Characters of a conversation in its template, which may repeat what was said."""


class Rendered(NamedTuple):
    """A conversation in its template."""

    text: str
    ids: list[int]


def chat_ids(tokenizer: Tokenizer, messages: Sequence[Message], answer: bool = True) -> list[int]:
    """The ids of a conversation, as `rendered` has them."""
    return rendered(tokenizer, messages, answer).ids


def rendered(tokenizer: Tokenizer, messages: Sequence[Message], answer: bool = True) -> Rendered:
    """A conversation as the model reads it; with `answer`, up to where the model's next message begins.

    Raises UserError where the tokeniser has no template, or a template that does not work.
    """
    said = {str(number): message["content"].strip() for number, message in enumerate(messages)}
    marked = [{**message, "content": mark(number, message["content"])} for number, message in enumerate(messages)]
    names = {f"{key}_token": name or "" for key, name in tokenizer.specials._asdict().items()}
    whole = render(template_of(tokenizer), {"messages": marked, "add_generation_prompt": answer, **names})
    words = {key: spelled(said, key) for key in set(MARK.findall(whole))}
    if (length := len(whole) + sum(len(words[key]) for key in MARK.findall(whole))) > LONGEST:
        raise UserError(f"the chat template does not work: it makes {length:,} characters of what was said")
    special = {token.content: id for id, token in tokenizer.core.get_added_tokens_decoder().items() if token.special}
    cut = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
    texts: list[str] = []
    ids: list[int] = []
    for start, end, token in spans(cut, whole):
        text = MARK.sub(lambda found: words[found[1]], whole[start:end])
        texts += [text, token]
        ids += tokenizer.encode(text) if text else []
        ids += [special[token]] if token else []
    return Rendered("".join(texts), ids)


def spans(cut: re.Pattern[str], text: str) -> list[tuple[int, int, str]]:
    """(start, end, special token that follows) of the plain stretches of a text."""
    found, start = [], 0
    for match in cut.finditer(text):
        found.append((start, match.start(), match[0]))
        start = match.end()
    return [*found, (start, len(text), "")]


def mark(number: int, text: str) -> str:
    """What stands for a message; its outer white space stays, as templates trim it or not."""
    core = text.strip()
    before = text[: len(text) - len(text.lstrip())]
    return f"{before}{OPEN}{number}{CLOSE}{text[len(before) + len(core) :]}"


def spelled(said: dict[str, str], key: str) -> str:
    """What takes the place of a mark: itself where nothing was said under its number."""
    number = key.rstrip("ja")
    text = said.get(number)
    if text is None:
        return f"{OPEN}{key}{CLOSE}"
    for form in key[len(number) :]:
        text = json.dumps(text, ensure_ascii=form == "a")[1:-1]
    return text


def with_template(tokenizer: Tokenizer, jinja: str = PLAIN.jinja) -> Tokenizer:
    """The tokeniser itself where it has a template; else a copy that has this one."""
    if "chat_template" in tokenizer.config:
        return tokenizer
    return Tokenizer(tokenizer.core, tokenizer.specials, tokenizer.config | {"chat_template": jinja})


def template_of(tokenizer: Tokenizer) -> str:
    """The tokeniser's template; a UserError where there is none."""
    template = tokenizer.config.get("chat_template")
    if not isinstance(template, str):
        raise UserError("this model has no chat template: it continues texts, it was not taught to converse")
    if OPEN in template or CLOSE in template:
        raise UserError("the chat template does not work: it uses characters for private use, which mark messages here")
    return template
