"""The one exception that a user sees: what was given, what is possible, what to do next, in one line."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Iterable
from importlib.util import find_spec
from typing import NamedTuple

MANY, NEAR = 20, 8
"""Names above which an error lists the nearest only, and how many."""


class UserError(Exception):
    """A mistake that the user can mend: printed as one line, without a traceback; the program exits with `code`."""

    code = 2


class WorkError(UserError):
    """What was asked for is possible, and did not come about."""

    code = 1


class PassingError(WorkError):
    """A full disk, a server that is away: the same command goes on once that is mended."""


def unknown(kind: str, given: str, possible: Iterable[str], hint: str = "") -> UserError:
    """The error for a name that is not in a set: the nearest match first, then what exists."""
    names = list(possible)
    return UserError(
        f"unknown {kind} '{given}'.{guess(given, names)} Possible: {choice(given, names)}.{' ' + hint if hint else ''}"
    )


def guess(given: str, names: Iterable[str]) -> str:
    """A question after the nearest of `names`, a space before it; nothing where none is near."""
    near = nearest(given, names, 1)
    return f" Did you mean '{near[0]}'?" if near else ""


def choice(given: str, names: Collection[str]) -> str:
    """All of `names`; of more than `MANY` the nearest, where any is near."""
    near = nearest(given, names, NEAR) if len(names) > MANY else []
    return f"{', '.join(near)}, and {len(names) - len(near)} others" if near else ", ".join(sorted(names))


def listing(names: Collection[str], most: int = 5) -> str:
    """Names with commas, of many the first."""
    shown = list(names)[:most]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def nearest(given: str, names: Iterable[str], most: int) -> list[str]:
    """At most so many of `names` that look like `given`, the likest first; capitals do not matter."""
    lower = {name.lower(): name for name in sorted(names)}
    return [lower[name] for name in difflib.get_close_matches(given.lower(), lower, n=most, cutoff=0.5)]


def visible(text: str) -> str:
    """A text on one line, with what a terminal would obey written out: ends of lines, control characters, changes of
    direction become \\n, \\x1b, \\u202e. Names from a folder or a file may hold any."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def missing_extra(package: str, extra: str, purpose: str) -> UserError:
    """The error for an optional dependency that is not installed."""
    return UserError(f"{purpose} needs the package '{package}': {sys.executable} -m pip install 'hornbook[{extra}]'")


class Package(NamedTuple):
    """An optional dependency."""

    module: str
    """As it is imported."""
    name: str
    """As it is installed."""
    extra: str
    purpose: str
    """What needs it."""

    def missing(self) -> UserError:
        """The error where it is not installed."""
        return missing_extra(self.name, self.extra, self.purpose)

    def require(self) -> None:
        """UserError where it is not installed; it is looked for, and not imported."""
        if find_spec(self.module) is None:
            raise self.missing()
