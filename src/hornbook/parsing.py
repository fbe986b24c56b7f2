"""Settings from words, by tyro; what it has to object to as one line, like every other error."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any

import tyro

from hornbook.errors import UserError, unknown

KINDS = {"INT": "a whole number", "FLOAT": "a number", "STR": "a text"}
EDGES = "│╭╮╰╯─ "
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""What tyro writes around its words where standard output is a terminal."""


def parse(settings: type[Any], word: str, rest: list[str], default: Any = None) -> Any:
    """The settings class built from the words after `hornbook WORD`, on top of `default`; UserError in one line."""
    told = io.StringIO()
    base = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(settings, args=rest, prog=f"hornbook {word}", **base)
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise objection(COLOUR.sub("", told.getvalue()), word) from None


def objection(box: str, word: str) -> UserError:
    """The error that tyro's box of lines tells of."""
    text, _, more = inside(box)
    if found := re.search(r"invalid choice '(.*?)' for argument '--(\S+?)'\. Expected one of \((.*?)\)", text):
        value, option, choices = found.groups()
        possible = sorted(set(re.findall(r"'([^']+)'", choices)) - {"None"})
        return unknown(f"--{option}", value, possible)
    if found := re.search(r"Error parsing (--\S+): .*?(?:matching|into) (.*?) could.*? from \['?(.*?)'?\]", text):
        option, kind, value = found.groups()
        kinds = [KINDS.get(name, name) for name in re.findall(r"[^|{},]+", kind) if name != "None"]
        return UserError(f"{option} {value}: it must be {' or '.join(kinds)}")
    if near := re.search(r"Perhaps you meant: (--\S+)", more):
        text = f"{text.strip()}. Perhaps you meant {near.group(1)}"
    return UserError(f"{text.strip(' .')} (hornbook {word} --help)")


def inside(box: str) -> tuple[str, str, str]:
    """The text of a box up to its first rule, and what comes after that."""
    lines = [line.strip(EDGES) if "─" not in line else "─" for line in box.splitlines()[1:]]
    return " ".join(" ".join(line or " " for line in lines).split()).strip("─ ").partition("─")
