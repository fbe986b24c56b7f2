"""`hornbook plan` and `bench`."""

from __future__ import annotations

import json

from hornbook.commands.printing import console, print_blocks
from hornbook.config import Bench, Plan


def plan(settings: Plan) -> None:
    """`hornbook plan`."""
    from hornbook.planning.plan import make
    from hornbook.planning.telling import shown

    found = make(settings)
    if settings.json:
        print(json.dumps(found.summary(), allow_nan=False))
    else:
        print_blocks(shown(found))


def bench(settings: Bench) -> None:
    """`hornbook bench`: every figure as soon as it is known; as JSON, all that are known at the end or at Ctrl-C."""
    from hornbook.bench import findings, gathered, told

    found = []
    try:
        for finding in findings(settings):
            found.append(finding)
            if not settings.json and (text := told(*finding)):
                console.print(text)
    finally:
        if settings.json and found:
            print(json.dumps(gathered(found)))
