"""Whether a run is finished, being trained or stopped; how far it is, and how long it will take yet."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from hornbook.lock import LOCK
from hornbook.report.record import Record
from hornbook.report.rung import number

PATIENCE = 120.0
"""Where no lock tells: a run whose log has been still for so many seconds, and for ten times its usual step, counts as
stopped. Compiling and evaluating write nothing."""


@dataclass(frozen=True)
class Status:
    state: str
    """'finished', 'running' or 'stopped'."""
    share: float | None
    """Of its length, 0 to 1; None where train.json does not say the length."""
    left: float | None
    """Seconds."""
    still: float
    """Seconds since its log was last written to."""


def status_of(record: Record, now: float) -> Status:
    """`now` in seconds since 1970."""
    still = max(0.0, now - record.changed)
    if record.finished:
        return Status("finished", 1.0, 0.0, still)
    running = at_work(record.folder)
    if running is None:
        running = still < max(PATIENCE, 10 * usual_step(record))
    state = "running" if running else "stopped"
    places = [(seconds_of(line), share) for line in record.log if (share := share_at(record, line)) is not None]
    if not places:
        return Status(state, None, None, still)
    (began, first), (seconds, share) = places[0], places[-1]
    left = (1 - share) * (seconds - began) / (share - first) if share > first else None
    return Status(state, share, left, still)


def at_work(folder: Path) -> bool | None:
    """Whether the process that the folder's lock names is alive; None where that cannot be told from here."""
    try:
        told = (folder / LOCK).read_text()
        holder = json.loads(told) if told else None
        if holder is None:
            return False
        if holder["host"] != platform.node():
            return None
        os.kill(max(1, int(holder["process"])), 0)
    except PermissionError:  # another user's, and so alive
        return True
    except ProcessLookupError:
        return False
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return True


def seconds_of(line: dict[str, object]) -> float:
    return number(line.get("seconds")) or 0.0


def share_at(record: Record, line: dict[str, object]) -> float | None:
    """How much of the run was done at a line of its log: by steps or by minutes, whichever ends it first."""
    steps = number(record.settings.get("total_steps")) or number(record.settings.get("steps"))
    repeats = bool(record.settings.get("like")) and steps is not None  # what a run by the clock did
    minutes = None if repeats else number(record.settings.get("minutes"))
    shares = [(number(line.get("step")) or 0.0) / steps] if steps else []
    shares += [seconds_of(line) / (60 * minutes)] if minutes else []
    return min(1.0, max(shares)) if shares else None


def usual_step(record: Record) -> float:
    """The median of the seconds between two lines of the log."""
    times = [s for line in record.log if (s := seconds_of(line))]
    gaps = sorted(b - a for a, b in pairwise(times) if b > a)
    return gaps[len(gaps) // 2] if gaps else 0.0
