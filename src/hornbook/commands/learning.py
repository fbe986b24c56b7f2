"""`hornbook train` and `finetune`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from hornbook.commands.printing import print_scores, print_table
from hornbook.config import Finetune, Train


@contextlib.contextmanager
def saving(place: object) -> Iterator[None]:
    """What is done within may be stopped, and is then saved in a place, from which the same command carries on."""
    from hornbook.training.interrupt import Interrupted

    try:
        yield
    except Interrupted:
        from hornbook import progress

        if not progress.silent:
            print(f"hornbook: stopped and saved in {place}; the same command carries on from there", file=sys.stderr)
        sys.exit(130)


def train(settings: Train) -> None:
    """`hornbook train`."""
    from hornbook.training.pretrain import resolve
    from hornbook.training.pretrain import train as pretrain

    out = resolve(settings).out
    with saving(out):
        summary = pretrain(settings)
    if settings.find_lr:
        return print_rates(str(out), summary)
    if "validation" in summary:
        print_scores({summary["model"]: summary["validation"]} | summary.get("validations", {}))
    else:
        print(f"pseudo-perplexity {summary['pseudo_perplexity']:.2f} (sees both sides: not comparable)")
    print(out)


def finetune(settings: Finetune) -> None:
    """`hornbook finetune`."""
    from hornbook.report.scores import scores_table
    from hornbook.training.finetune import finetune as teach
    from hornbook.training.finetune import resolve

    out = resolve(settings).out
    with saving(out):
        summary = teach(settings)
    if settings.find_lr:
        return print_rates(str(out), summary)
    print_table(scores_table(summary["scores"], str(out)))
    print(out)


def print_rates(out: str, found: dict[str, Any]) -> None:
    """What --find-lr suggests, and its page."""
    from hornbook.report.rate_page import write_rates
    from hornbook.training.find_rate import advice

    print(advice(found))
    print(write_rates(found, advice(found), out))
