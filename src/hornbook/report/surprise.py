"""When a simpler model beats a Transformer: that it did, what the figures know of the cause, and what would test it."""

from __future__ import annotations

import re
from typing import Any

from hornbook.report import wording
from hornbook.report.differences import compare, spelled
from hornbook.report.rung import Rung, number

LEVEL = 0.005
"""A fall by less than this share over the last evaluations counts as level."""


def about_surprise(order: list[Rung], facts: dict[str, Any]) -> list[str]:
    """A sentence or two about the best recurrent and the best counted rung, where they are ahead of a Transformer."""
    best = [next((r for r in order if r.is_recurrent), None), next((r for r in order if r.is_counted), None)]
    found = [sentence for simpler in best if simpler and (sentence := surprise_sentence(simpler, order))]
    return [*found, hypothesis(facts)] if found else []


def surprise_sentence(simpler: Rung, order: list[Rung]) -> str:
    transformers = [r for r in order if r.is_transformer]
    ahead = {t.name: d for t in transformers if (d := compare(t, simpler)) is not None and d[1] > 0}
    if not ahead:
        return ""
    nearest = next(t for t in transformers if t.name in ahead)
    whom = "every Transformer rung" if len(ahead) == len(transformers) > 1 else wording.listing(list(ahead))
    said = (
        f"{simpler.name}, which is {'only counted' if simpler.is_counted else 'recurrent'}, beats {whom} here: "
        f"{nearest.name} needs {ahead[nearest.name][0]:.3f} more bits per byte (95 % interval "
        f"{spelled(ahead[nearest.name])})."
    )
    return " ".join(
        [said, *by_tokens(nearest, simpler, order), *by_size(nearest, simpler), *by_slope(nearest, simpler)]
    )


def by_tokens(slow: Rung, quick: Rung, order: list[Rung]) -> list[str]:
    """How much text either saw in its time; one pass of a counted rung is the length of the text."""
    seen, others = slow.figure("targets"), quick.figure("targets")
    if seen is None or others is None:
        return []
    length = next((r.figure("targets") for r in order if r.is_counted), None)
    share = f", {wording.three(seen / length)} times the training text" if length else ""
    saw, other = f"{wording.count(seen)} tokens{share}", wording.count(others)
    if quick.is_counted:
        return [f"{quick.name} counted {other} tokens; {slow.name} saw {saw}."]
    if seen >= 0.95 * others:
        return [f"It is not for want of tokens: {slow.name} saw {saw}, {quick.name} {other}."]
    speeds = slow.figure("tokens_per_second"), quick.figure("tokens_per_second")
    at = f" ({wording.count(speeds[0])} a second against {wording.count(speeds[1])})" if all(speeds) else ""
    return [f"One budget is one time, not one number of tokens: {slow.name} saw {saw}, {quick.name} {other}{at}."]


def by_size(slow: Rung, quick: Rung) -> list[str]:
    a, b = slow.figure("parameters"), quick.figure("parameters")
    if a is None or b is None or quick.is_counted:
        return []
    return [f"They have {wording.count(a)} and {wording.count(b)} parameters."]


def last_fall(rung: Rung) -> tuple[float, float, float] | None:
    """Over the last three evaluations: seconds, first and last bits per byte."""
    points = rung.curve("validation_bits_per_byte")[-3:]
    return (points[-1][0] - points[0][0], points[0][1], points[-1][1]) if len(points) == 3 else None


def still_falling(rung: Rung) -> bool:
    found = last_fall(rung)
    return found is not None and found[1] - found[2] > LEVEL * found[2]


def by_slope(slow: Rung, quick: Rung) -> list[str]:
    told = []
    for rung in (slow, quick):
        if (found := last_fall(rung)) is not None:
            time, first, last = found
            how = "was still falling at its end" if still_falling(rung) else "had levelled off"
            moved = f"{first:.3f} to {last:.3f} over the last {wording.seconds(time)} s"
            told.append(f"{rung.name} {how} ({moved})")
    return [f"{', '.join(told)}."] if told else []


def hypothesis(facts: dict[str, Any]) -> str:
    command = longer_command(facts)
    test = f"; to test it: {command}" if command else ""
    return f"That the order changes with a longer budget is a hypothesis, not a result of this run{test}."


def longer_command(facts: dict[str, Any]) -> str:
    """The command that was given, with ten times its minutes (ten at least) and a folder of its own."""
    command, minutes = facts.get("command"), number(facts.get("minutes"))
    if not isinstance(command, str) or minutes is None:
        return ""
    longer = f"{max(10, 10 * minutes):g}"
    command = set_option(command, "--minutes", longer)
    return set_option(command, "--out", f"runs/ladder-{longer}-minutes")


def set_option(command: str, option: str, value: str) -> str:
    """`command` with the option set, whether it was there or not."""
    rest = re.sub(rf"\s{option}[ =]('[^']*'|\S+)", "", command)
    return f"{rest} {option} {value}"
