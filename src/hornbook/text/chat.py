"""Messages -> ids, by the chat template that a tokeniser brings along.

The template is rendered in a process of its own (`chat_template.py`). It sees marks in the place of what was said, so
that only its own special tokens become ids: a special token's name inside a message stays characters.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hornbook.errors import UserError
from hornbook.text.tokenizers import Tokenizer

Message = dict[str, str]
"""role ('system', 'user', 'assistant') and content."""

OPEN, CLOSE = "\ue000", "\ue001"
"""Characters for private use around a mark."""
PATIENCE = 20.0
"""Seconds for a template, the start of its process included."""


def chat_ids(tokenizer: Tokenizer, messages: Sequence[Message], answer: bool = True) -> list[int]:
    """The ids of a conversation; with `answer`, up to where the model's next message begins.

    Raises UserError where the tokeniser has no template, or a template that does not work.
    """
    said = [message["content"] for message in messages]
    marked = [
        {**message, "content": mark(number, text)}
        for number, (message, text) in enumerate(zip(messages, said, strict=True))
    ]
    names = {f"{key}_token": name or "" for key, name in tokenizer.specials._asdict().items()}
    rendered = render(template_of(tokenizer), {"messages": marked, "add_generation_prompt": answer, **names})
    special = {token.content: id for id, token in tokenizer.core.get_added_tokens_decoder().items() if token.special}
    cut = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
    ids: list[int] = []
    for start, end, token in spans(cut, rendered):
        text = re.sub(f"{OPEN}(\\d+){CLOSE}", lambda found: said[int(found[1])].strip(), rendered[start:end])
        ids += tokenizer.encode(text) if text else []
        ids += [special[token]] if token else []
    return ids


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


def template_of(tokenizer: Tokenizer) -> str:
    """The tokeniser's template; a UserError where there is none."""
    template = tokenizer.config.get("chat_template")
    if not isinstance(template, str):
        raise UserError("this model has no chat template: it continues texts, it was not taught to converse")
    if OPEN in template or CLOSE in template:
        raise UserError("the chat template does not work: it uses characters for private use, which mark messages here")
    return template


def render(template: str, values: dict[str, Any]) -> str:
    """What a template makes of some values; a UserError where it fails, or asks for more than it may have."""
    program = Path(__file__).with_name("chat_template.py")
    try:
        done = subprocess.run(
            [sys.executable, str(program)],
            input=json.dumps({"template": template, "values": values}),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        answer = {"error": f"it ran for more than {PATIENCE:.0f} seconds"}
    except ValueError:  # ended by the system: out of time, or out of memory
        answer = {"error": "it was stopped, for it takes more time or memory than a conversation can need"}
    if "error" in answer:
        raise UserError(f"the chat template does not work: {answer['error']}")
    return answer["text"]
