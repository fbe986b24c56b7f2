"""`hornbook doctor`, `report` and `compare`."""

from __future__ import annotations

import json
import sys
import time

from hornbook.commands.printing import console, print_blocks
from hornbook.config import Compare, Doctor, Report
from hornbook.errors import visible


def doctor(settings: Doctor) -> None:
    """`hornbook doctor`: one line a check; the program exits with 1 where one failed."""
    from hornbook.doctor.certificate import closing, examine
    from hornbook.doctor.finding import FAIL

    styles, found, began = {"PASS": "green", "FAIL": "bold red", "WARN": "yellow", "SKIP": "dim"}, [], time.monotonic()
    for finding in examine(settings):
        found.append(finding)
        if not settings.json:
            console.print(visible(finding.line), style=styles[finding.verdict])
    failed = any(finding.verdict == FAIL for finding in found)
    if settings.json:
        print(json.dumps({"run": settings.run, "passed": not failed, "checks": [f.summary for f in found]}))
    else:
        console.print(closing(found, time.monotonic() - began))
    if failed:
        sys.exit(1)


def report(settings: Report) -> None:
    """`hornbook report`."""
    from hornbook.report.run_page import write_runs

    print(write_runs(settings.runs, settings.out))


def compare(settings: Compare) -> None:
    """`hornbook compare`."""
    from hornbook.comparing import as_json, compare_runs, shown

    found = compare_runs(settings)
    if settings.json:
        print(json.dumps(as_json(found)))
    else:
        print_blocks(shown(found))
