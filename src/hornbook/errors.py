"""The one exception that a user sees: what was given, what is possible, what to do next, in one line."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend: printed as one line, without a traceback; the program exits with 2."""


def unknown(kind: str, given: str, possible: Iterable[str], hint: str = "") -> UserError:
    """The error for a name that is not in a set: the nearest match first, then everything that exists."""
    names = sorted(possible)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"unknown {kind} '{given}'.{guess} Possible: {', '.join(names)}.{' ' + hint if hint else ''}")


def missing_extra(package: str, extra: str, purpose: str) -> UserError:
    """The error for an optional dependency that is not installed."""
    return UserError(f"{purpose} needs the package '{package}': {sys.executable} -m pip install 'hornbook[{extra}]'")
