"""Renders one chat template, as a program of its own: JSON in, JSON out, little memory, little time.

A template is a program in Jinja's language, by whoever made the model. Jinja's immutable sandbox keeps it from Python,
but not from filling the memory or running for hours; the limits of a process do. Run by `text/chat.py`.
"""

import json
import sys
from datetime import datetime

MEMORY, SECONDS, LONGEST = 2**30, 5, 4_000_000
"""Bytes, seconds of CPU time, characters."""


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
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

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


if __name__ == "__main__":
    given = json.load(sys.stdin)
    limit()
    try:
        answer = {"text": render(given)}
    except MemoryError:
        answer = {"error": "it takes more memory than a conversation can need"}
    except Exception as error:  # a template's fault, whatever it is
        answer = {"error": (str(error) or repr(error)).splitlines()[0]}
    json.dump(answer, sys.stdout)
