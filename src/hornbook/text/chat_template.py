"""Renders chat templates, as a program of its own: a line of JSON in, a line of JSON out, little memory, little time.

A template is a program in Jinja's language, by whoever made the model. Jinja's immutable sandbox keeps it from Python,
but not from filling the memory or running for hours; the limits of a process do. Each is rendered in a fork of its
own, which knows nothing of those before; without forks (Windows) the program ends after one. Run by `rendering.py`.
"""

import json
import os
import sys
from datetime import datetime

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY, SECONDS, LONGEST = 2**30, 5, 4_000_000
"""Bytes, seconds of CPU time, characters."""
STOPPED = {"error": "it was stopped, for it takes more time or memory than a conversation can need"}


def limit() -> None:
    """Hold this process to MEMORY and SECONDS, where the system can."""
    try:
        import resource
    except ImportError:
        return
    for what, bound in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, SECONDS)):
        resource.setrlimit(what, (bound, bound))


def render(task: dict) -> str:
    """The text that task['template'] makes of task['values']."""

    def refuse(message: object) -> None:
        raise TemplateError(str(message))

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda form: datetime.now().strftime(str(form)),
    }
    text = environment.from_string(task["template"]).render(**task["values"])
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
