"""The page of `hornbook morph`: bits per byte stage by stage, what each change gained, and what cannot be told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hornbook.atomic import write_text
from hornbook.report import wording
from hornbook.report.morph_chart import Stage, draw_stages, verdict
from hornbook.report.page import VERSIONS, WIDTHS, template

PAGE = "morph.html"
HEAD = ["Stage", "Bits per byte", "Change", "Parameters", "Tokens read", "Tokens/s", "Memory"]
FACTS = {
    "corpus": "Text",
    "tokenizer": "Tokeniser",
    "minutes": "Minutes a run",
    "seeds": "Seeds",
    "machine": "Machine",
    "date": "Date",
}
ALIKE = 0.02
"""Tokens read that differ by a smaller share count as equally many."""
VERDICTS = {"gains": "gained", "costs": "cost", "open": "cannot be told from none"}


def write_morph(folder: Path, found: Mapping[str, Any]) -> Path:
    """Write the page of what `morphing.morph` found into `folder`, in one step; returns where it is."""
    path = folder / PAGE
    write_text(path, render_morph(found))
    return path


def render_morph(found: Mapping[str, Any]) -> str:
    """The HTML text; the same input gives the same text."""
    facts, stages = found["facts"], found["stages"]
    return template("morph.html.jinja").render(
        title=wording.visible(f"From part to part on {facts.get('data', 'one text')}"),
        result=headline(stages),
        command=wording.visible(facts.get("command", "")),
        facts=listed(facts),
        drawings=[(size, draw_stages(stages, width, f"stages-{size}")) for size, width in WIDTHS.items()],
        head=HEAD,
        rows=[(stage, cells(stage)) for stage in stages],
        sentences=[(stage["name"], sentence(stage, stages)) for stage in stages],
        compared=sum(stage["change_interval"] is not None for stage in stages),
        seeds=len(facts.get("seeds", ())),
    )


def listed(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What one must know to repeat it, named."""
    told = {key: facts[key] for key in FACTS if facts.get(key) is not None}
    told |= {"seeds": ", ".join(map(str, told.get("seeds", ())))}
    rows = [(FACTS[key], wording.visible(str(value))) for key, value in told.items()]
    versions = ", ".join(f"{name} {facts[key]}" for key, name in VERSIONS.items() if key in facts)
    return [*rows, ("Versions", wording.visible(versions))] if versions else rows


def morph_table(found: Mapping[str, Any]) -> list[list[str]]:
    """The figures: a head, then a row a stage, in words."""
    return [HEAD, *([f"{'aside: ' if s['aside'] else ''}{described(s)}", *cells(s)] for s in found["stages"])]


def described(stage: Stage) -> str:
    """The change, and what it leads to."""
    return f"{stage['words']}{f': {reaches}' if (reaches := stage['reaches']) else ''}"


def cells(stage: Stage) -> list[str]:
    """The figures of a stage, as HEAD names them."""
    low_high = stage["interval"]
    about = f" ({wording.between(low_high)})" if low_high else ""
    change, ends = stage["change"], stage["change_interval"]
    around = f" ({spelled(ends)})" if ends else ""
    return [
        f"{wording.bits(stage['bits_per_byte'])}{about}",
        wording.DASH if change is None else f"{wording.change(change)}{around}",
        *(wording.count(stage[key]) for key in ("parameters", "tokens", "tokens_per_second")),
        wording.memory(stage["peak_memory"]),
    ]


def spelled(interval: tuple[float, float]) -> str:
    return f"{wording.change(interval[0])} to {wording.change(interval[1])}"


def headline(stages: list[Stage]) -> str:
    """The main result in one sentence: where the way leads, and how many of its changes are more than chance."""
    way = [stage for stage in stages if not stage["aside"]] or stages
    first, last = way[0], way[-1]
    if len(way) == 1:
        return f"{first['name']} needs {first['bits_per_byte']:.3f} bits for each byte of text that it had not seen."
    ends = f"{first['bits_per_byte']:.3f} bits per byte become {last['bits_per_byte']:.3f}"
    found = [verdict(stage) for stage in way[1:]]
    counts = [f"{found.count(kind)} {word}" for kind, word in VERDICTS.items() if kind in found]
    told = f"; of {len(found)} changes on the way, {wording.listing(counts)}."
    alone = ". One seed cannot say which changes are more than chance."
    return f"From {first['name']} to {last['name']}: {ends}{alone if '' in found else told}"


def sentence(stage: Stage, stages: list[Stage]) -> str:
    """What the figures say of a stage, after its name, and no more than they say."""
    before = next((other for other in stages if other["name"] == stage["before"]), None)
    read = f"{wording.count(stage['tokens'])} tokens"
    if before is None:
        return f"needs {stage['bits_per_byte']:.3f} bits per byte after {read}; nothing before it compares."
    parts = [compared(stage, before["name"]), tokens_read(stage, before)]
    if stage["between"]:
        parts.append(f"The difference is also that of the changes between: {wording.listing(stage['between'])}.")
    return " ".join([*parts, "Nothing is built upon it."] if stage["aside"] else parts)


def compared(stage: Stage, name: str) -> str:
    """The difference from the stage that it begins with."""
    gap = stage["change"]
    apart = f"{abs(gap):.3f} bits per byte {'more' if gap > 0 else 'fewer'} than {name}"
    kind = verdict(stage)
    if not kind:
        return f"needs {apart}, with a single seed: whether another would say the same is not known."
    ends = spelled(stage["change_interval"])
    if kind == "open":
        return f"cannot be told from {name}: the 95 % interval of the difference, {ends}, includes 0."
    return f"needs {apart} (95 % interval {ends})."


def tokens_read(stage: Stage, before: Stage) -> str:
    """How far it came in its time, and what that has to do with the difference."""
    share = stage["tokens"] / before["tokens"] - 1
    read = f"It read {wording.count(stage['tokens'])} tokens in its time"
    if abs(share) < ALIKE:
        return f"{read}, about as many."
    more, kind = f"{read}, {100 * abs(share):.0f} % {'more' if share > 0 else 'fewer'}", verdict(stage)
    if kind not in ("gains", "costs"):
        return f"{more}."
    agrees = (share > 0) == (kind == "gains")
    return f"{more}, {'which may be part of it' if agrees else 'so speed is not the reason'}."
