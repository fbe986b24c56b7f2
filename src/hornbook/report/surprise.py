"""When a simpler model beats a Transformer: that it did, what the figures know of the cause, and what would test it."""

from __future__ import annotations

import re
from typing import Any

from hornbook.report import wording
from hornbook.report.differences import Difference, compare, spelled
from hornbook.report.rung import Remark, Rung, number

LEVEL = 0.005
"""A fall by less than this share over the last evaluations counts as level."""


def about_surprise(order: list[Rung], facts: dict[str, Any]) -> list[Remark]:
    """The best recurrent and the best counted rung, where they are ahead of a Transformer; why; and what to try."""
    said, reasons = [], []
    for simpler in (next((r for r in order if r.is_recurrent), None), next((r for r in order if r.is_counted), None)):
        if simpler and (ahead := transformers_behind(simpler, order)):
            said.append(surprise(simpler, ahead, order))
            nearest, _ = ahead[0]
            reasons += [*by_tokens(nearest, simpler, order), *by_size(nearest, simpler)]
            reasons += [*by_slope(nearest), *by_slope(simpler)]
    return [Remark(" ".join(said), (*dict.fromkeys(reasons), hypothesis(facts)))] if said else []


def transformers_behind(simpler: Rung, order: list[Rung]) -> list[tuple[Rung, Difference]]:
    """The Transformers that surely need more bits than `simpler`, best first, and how many more."""
    found = [(r, compare(r, simpler)) for r in order if r.is_transformer]
    return [(r, difference) for r, difference in found if difference is not None and difference[1] > 0]


def surprise(simpler: Rung, ahead: list[tuple[Rung, Difference]], order: list[Rung]) -> str:
    nearest, difference = ahead[0]
    every = len(ahead) == sum(r.is_transformer for r in order) > 1
    whom = "every Transformer rung" if every else wording.listing([r.name for r, _ in ahead])
    kind = "only counted" if simpler.is_counted else "recurrent"
    return (
        f"{simpler.name}, which is {kind}, beats {whom} here: {nearest.name} needs {difference[0]:.3f} more bits per "
        f"byte (95 % interval {spelled(difference)})."
    )


def by_tokens(slow: Rung, quick: Rung, order: list[Rung]) -> list[str]:
    """How much text either saw in its time; one pass of a counted rung is the length of the text."""
    seen, others = slow.figure("tokens"), quick.figure("tokens")
    if seen is None or others is None:
        return []
    length = next((r.figure("tokens") for r in order if r.is_counted), None)
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
    if a is None or b is None or quick.is_counted or wording.count(a) == wording.count(b):
        return []
    return [f"{slow.name} and {quick.name} have {wording.count(a)} and {wording.count(b)} parameters."]


def last_fall(rung: Rung) -> tuple[float, float, float] | None:
    """Over the last three evaluations: seconds, first and last bits per byte."""
    points = rung.curve("validation_bits_per_byte")[-3:]
    return (points[-1][0] - points[0][0], points[0][1], points[-1][1]) if len(points) == 3 else None


def by_slope(rung: Rung) -> list[str]:
    if (found := last_fall(rung)) is None:
        return []
    time, first, last = found
    how = "was still falling at its end" if first - last > LEVEL * last else "had levelled off"
    return [f"{rung.name} {how}: {first:.3f} to {last:.3f} bits per byte over its last {wording.seconds(time)} s."]


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
