"""`hornbook ladder`, `morph` and `sweep`."""

from __future__ import annotations

import json
import math

from hornbook.commands.learning import saving
from hornbook.commands.printing import console, print_scores, print_table
from hornbook.config import Ladder, Morph, Sweep


def ladder(settings: Ladder) -> None:
    """`hornbook ladder`."""
    from hornbook.ladder import climb, folder_of

    folder = folder_of(settings)
    with saving(folder):
        rungs = climb(settings)
    scored = {rung.name: rung.summary["validation"] for rung in rungs if "validation" in rung.summary}
    print_scores(dict(sorted(scored.items(), key=lambda item: item[1]["nats"] or math.inf)))
    for rung in rungs:
        if "pseudo_perplexity" in rung.summary:
            console.print(f"{rung.name}: pseudo-perplexity {rung.summary['pseudo_perplexity']:.2f}, not comparable")
    print(folder / "report.html")


def morph(settings: Morph) -> None:
    """`hornbook morph`."""
    from hornbook.morphing import folder_of
    from hornbook.morphing import morph as run
    from hornbook.report.morph_page import PAGE, morph_table

    folder = folder_of(settings)
    with saving(folder):
        found = run(settings)
    print_table(morph_table(found))
    print(folder / PAGE)


def sweep(settings: Sweep) -> None:
    """`hornbook sweep`."""
    from hornbook.report.sweep_page import PAGE, sweep_table
    from hornbook.sweeping import folder_of
    from hornbook.sweeping import sweep as run

    folder = folder_of(settings)
    with saving(folder):
        found = run(settings)
    if settings.json:
        return print(json.dumps(found))
    print_table(sweep_table(found))
    print(folder / PAGE)
