"""Makes the steps in docs/tutorials.md of docs/tutorial_steps.toml: python docs/tutorials.py

tests/test_tutorial_steps.py holds the page to that, and runs every step.
"""

from __future__ import annotations

import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent
TABLE, PAGE = DOCS / "tutorial_steps.toml", DOCS / "tutorials.md"
WIDTH = 120
BEGIN, END = "<!-- steps: python docs/tutorials.py -->\n", "<!-- /steps -->\n"


@dataclass(frozen=True)
class Step:
    """One step of a tutorial, and what does it here."""

    tutorial: str
    key: str
    does: str
    sh: str = ""
    python: str = ""
    """Where there is both, after `sh`."""
    differs: str = ""
    versions: str = ""
    after: tuple[str, ...] = ()
    """Keys of the steps whose runs this one needs."""
    prints: tuple[str, ...] = ()
    prints_with: str = ""
    """The folder of $HORNBOOK_DATA without which it prints something else."""


def steps() -> list[Step]:
    """All steps, in order."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return [
        Step(tutorial["title"], **{name: tuple(v) if isinstance(v, list) else v for name, v in row.items()})
        for tutorial in table["tutorial"]
        for row in tutorial["step"]
    ]


def section(step: Step, order: list[str]) -> str:
    """A step as the page has it; `order` has the keys of all."""
    said = [f"**{step.key}. {step.does}.**"]
    if step.sh:
        said.append("```sh\n" + "".join(f"{folded(line)}\n" for line in step.sh.splitlines()) + "```")
    if step.python:
        said.append(f"```python\n{step.python}```")
    later = [key for key in step.after if order.index(key) > order.index(step.key)]
    first = f"*First: {', '.join(later)}.*" if later else ""
    words = first, step.differs, step.versions and f"*Today's libraries:* {step.versions}"
    return "\n\n".join([*said, *(wrap(text) for text in words if text)]) + "\n"


def wrap(text: str) -> str:
    """In lines of the width of the other pages."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def folded(command: str) -> str:
    """A long command in lines that a shell reads as one, broken before options only."""
    first, *options = command.split(" --")
    lines = [first]
    for option in options:
        if len(lines[-1]) + len(option) > WIDTH - 8:
            lines.append(f"  --{option}")
        else:
            lines[-1] += f" --{option}"
    return " \\\n".join(lines)


def page(text: str) -> str:
    """The page with its steps made anew; what stands around them stays."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    parts, title, every = [], "", steps()
    order = [step.key for step in every]
    for step in every:
        if step.tutorial != title:
            title = step.tutorial
            parts.append(f"### {title}\n")
        parts.append(section(step, order))
    return before + BEGIN + "\n" + "\n".join(parts) + "\n" + END + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
