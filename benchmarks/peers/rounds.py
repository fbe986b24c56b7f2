"""Runs that take turns, each in a process of its own: what they answer is kept, and a stopped command carries on."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hornbook.atomic import write_json
from hornbook.progress import duration

USUAL_SECONDS = 45.0
"""What a run takes besides the minutes that it is given, until one has shown it."""


@dataclass
class Kept:
    """What was measured, in a JSON file that is written anew after every run."""

    path: Path
    kind: Any
    """Of entries, the keys of `runs`: a NamedTuple that begins with the round."""
    facts: dict[str, Any]
    peak: float = 0.0
    """The best seen of what shares are shares of: FLOP/s of a bfloat16 product, or bytes read a second."""
    runs: dict[Any, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.path.exists():
            return
        known = json.loads(self.path.read_text())
        if known["facts"] != self.facts:
            sys.exit(f"{self.path} was measured otherwise ({known['facts']}): choose another --out, or delete it")
        self.peak = known["peak"]
        self.runs = {self.kind(*(run[name] for name in self.kind._fields)): run for run in known["runs"]}

    def keep(self, entry: Any, answer: dict[str, Any]) -> None:
        self.runs[entry] = answer
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {"facts": self.facts, "peak": self.peak, "runs": list(self.runs.values())})

    def of(self, *configuration: Any) -> list[dict[str, Any]]:
        """The runs of one configuration, what an entry has behind its round: one a round."""
        return [run for entry, run in self.runs.items() if entry[1:] == configuration]


def carry_on(
    todo: list[Any],
    kept: Kept,
    peak: Callable[[], float],
    run: Callable[[Any], dict[str, Any]],
    told: Callable[[dict[str, Any]], str],
) -> bool:
    """Do what is left, `peak` before each round, keeping every answer; whether the user has stopped it."""
    print(f"{len(todo)} runs to do, {len(kept.runs)} kept in {kept.path}: about {duration(estimate(todo, kept))}")
    try:
        for number, entry in enumerate(todo, 1):
            if number == 1 or todo[number - 2].round != entry.round:
                kept.peak = max(kept.peak, peak())
            print(f"[{number}/{len(todo)}] {entry}: ", end="", flush=True)
            answer = run(entry)
            if error := answer.get("error"):
                print(error)
                continue
            kept.keep(entry, answer)
            print(told(answer))
    except KeyboardInterrupt:
        print(f"\nstopped; {len(kept.runs)} runs are kept in {kept.path}, and the same command carries on")
        return True
    return False


def estimate(todo: list[Any], kept: Kept) -> float:
    """Seconds for the runs to do: as long as the same took before; before any, the minutes that an entry names."""

    def one(entry: Any) -> float:
        known = [run["wall_seconds"] for run in kept.of(*entry[1:])]
        return statistics.median(known) if known else 60 * getattr(entry, "minutes", 0) + USUAL_SECONDS

    return sum(map(one, todo))


def asked(command: list[str], settings: dict[str, str]) -> dict[str, Any]:
    """The line of JSON that a process ends with, and how long it took; its error in a line."""
    began = time.perf_counter()
    try:
        done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=3600)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": f"left out ({error})"}
    if done.returncode < 0:
        return {"error": f"left out (the process died of {signal.Signals(-done.returncode).name})"}
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return {"error": f"left out ({(done.stderr.strip().splitlines() or ['no answer'])[-1]})"}
    return json.loads(lines[-1]) | {"wall_seconds": time.perf_counter() - began}
