"""Renders chat templates, as a program of its own: a line of JSON in, a line of JSON out, little memory, little time.

A template is a program in Jinja's language, by whoever made the model. Jinja's immutable sandbox keeps it from Python,
but not from filling the memory or running for hours; the limits of a process do. Each is rendered in a fork of its
own, which knows nothing of those before; without forks (Windows) the program ends after one. Run by `rendering.py`.
"""

import contextlib
import json
import os
import re
import sys
from datetime import datetime

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY, SECONDS, LONGEST = 2**30, 5, 4_000_000
"""Bytes, seconds of CPU time, characters."""
STOPPED = {"error": "it was stopped, for it takes more time or memory than a conversation can need"}

OPEN, CLOSE = "\ue000", "\ue001"
"""Around the number that stands for what was said, as `chat.py` has them."""
MARK_OR_FOREIGN = re.compile(f"({OPEN}\\d+)([ja]*){CLOSE}|[^\0-\x7f]")
DEEPEST = 2
"""So often what was said may be made JSON, and that JSON once more."""
NOT_GIVEN = {"tools": None, "documents": None}
"""What transformers gives to every template, and conversations here do not have."""


class Generation(Extension):
    """The tag around what the model says: {% generation %} ... {% endgeneration %} writes what is between them."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """What is set inside is not known outside, as where transformers notes the place of each answer."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson` of transformers' templates, where nothing is escaped for HTML.

    A mark gets the letter j, or a for ASCII only: what it stands for becomes JSON when it takes the mark's place.
    """

    def spell(found: re.Match) -> str:
        if found[1] is None:
            return json.dumps(found[0])[1:-1] if ensure_ascii else found[0]
        if len(found[2]) == DEEPEST:
            raise TemplateError("it writes JSON within JSON within JSON")
        return f"{found[1]}{found[2]}{'a' if ensure_ascii else 'j'}{CLOSE}"

    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    return MARK_OR_FOREIGN.sub(spell, text)


def limit() -> None:
    """Hold this process to MEMORY and SECONDS, where the system can."""
    try:
        import resource
    except ImportError:
        return
    for what, bound in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, SECONDS)):
        with contextlib.suppress(OSError, ValueError):  # macOS has no bound of memory, and others lower ones
            resource.setrlimit(what, (bound, bound))


def render(task: dict) -> str:
    """The text that task['template'] makes of task['values']."""

    def refuse(message: object) -> None:
        raise TemplateError(str(message))

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda form: datetime.now().strftime(str(form)),
    }
    text = environment.from_string(task["template"]).render(NOT_GIVEN | task["values"])
    if len(text) > LONGEST:
        raise TemplateError(f"it writes {len(text):,} characters")
    return text


def answer(line: bytes) -> None:
    """Render what a line asks for, and write the answer."""
    task = json.loads(line)
    limit()
    try:
        found = {"text": render(task)}
    except MemoryError:
        found = {"error": "it takes more memory than a conversation can need"}
    except Exception as error:  # a template's fault, whatever it is
        found = {"error": (str(error) or repr(error)).splitlines()[0]}
    write(found)


def write(found: dict) -> None:
    sys.stdout.buffer.write(json.dumps(found).encode() + b"\n")
    sys.stdout.buffer.flush()


def serve() -> None:
    """A fork for each line, one after another, until nobody asks any more."""
    for line in sys.stdin.buffer:
        if (child := os.fork()) == 0:
            code = 1
            try:
                answer(line)
                code = 0
            finally:
                os._exit(code)
        if os.waitpid(child, 0)[1]:
            write(STOPPED)


if __name__ == "__main__":
    if hasattr(os, "fork"):
        serve()
    else:
        answer(sys.stdin.buffer.readline())
