"""`hornbook evaluate`."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from hornbook.commands.printing import console, print_scores, print_table
from hornbook.config import Evaluate
from hornbook.errors import visible

if TYPE_CHECKING:
    from hornbook.evaluation.sentences import Classified, Sentence
    from hornbook.layers.model import LanguageModel
    from hornbook.tasks import Task

LONGEST_NAME = 60
"""Characters of a text at the head of a table."""


def evaluate(settings: Evaluate) -> None:
    """`hornbook evaluate`."""
    from hornbook.evaluation.measure import multiplied_in

    with multiplied_in(settings.precision, settings.device):
        evaluated(settings)


def evaluated(settings: Evaluate) -> None:
    """What is asked of `hornbook evaluate`: a harness, a task, a tutorial's protocol, sentences, or a corpus."""
    from hornbook.evaluation.wanted import settled

    if settings.harness:
        return evaluate_harness(settings)
    if settings.text and settings.protocol == "honest" and not settings.task:
        return evaluate_texts(settings)
    settings, task = settled(settings)
    if task is not None:
        return evaluate_task(settings, task)
    if settings.protocol == "tutorial":
        return tutorial(settings)
    from hornbook.evaluation.measure import measure, measure_encoder

    model = opened(settings)
    if not model.causal:
        figure = measure_encoder(settings, model)
        text = f"pseudo-perplexity {figure:.2f}: each token predicted from both sides, not comparable with other rungs"
        print(json.dumps({"pseudo_perplexity": figure}) if settings.json else text)
        return
    scores = measure(settings, model)
    if settings.json:
        print(json.dumps(scores.summary()))
        return
    print_scores({settings.run: scores.summary()})
    note = "" if scores.restorable else " This tokeniser does not restore the text, so there are no bits per byte."
    console.print(
        f"{settings.corpus} {settings.part}: {len(scores.nats)} documents, {scores.targets.sum():,} targets, each "
        f"scored once with at least {scores.context - scores.stride} tokens of context (window {scores.context}, "
        f"stride {scores.stride}) or all that its document has.{note}",
    )


def evaluate_texts(settings: Evaluate) -> None:
    """`hornbook evaluate RUN --text TEXT`: the probability of a text, or the classes of it by a classifier."""
    from hornbook.evaluation.sentences import classify_text, score_sentence
    from hornbook.evaluation.wanted import taught

    model = opened(settings)
    if not model.config.labels:
        return print_sentences([score_sentence(model, text) for text in settings.text], settings.json)
    known = taught(settings.run)
    context, cut = settings.context or known.get("context_of_examples"), settings.cut or known.get("cut") or ""
    print_classes([classify_text(model, text, context, cut) for text in settings.text], settings.json)


def evaluate_task(settings: Evaluate, task: Task) -> None:
    """`hornbook evaluate RUN hellaswag`, or any other task, or a file of examples."""
    from hornbook.evaluation.judging import judge
    from hornbook.evaluation.mistakes import keep, mistakes
    from hornbook.progress import Bar
    from hornbook.report.scores import scores_table

    model = opened(settings)
    with Bar("evaluating") as bar:
        found = judge(
            model,
            task,
            settings.split or "test",
            settings.limit,
            settings.context,
            settings.cut or "",
            settings.baselines,
            bar.show,
        )
    keep(found, settings.run)
    told = found.summary()
    if settings.json:
        print(json.dumps(told | ({"mistakes": mistakes(found, settings.show)} if settings.show else {})))
        return
    print_table(scores_table(told, settings.run))
    for name, signature in told.get("signatures", {}).items():
        print(f"{name}: {signature}")
    remarks = [found.note, "" if settings.precision == "float32" else f"computed in {settings.precision}"]
    print("; ".join(filter(None, [f"{task.name}, {settings.split}: {len(found.examples):,} examples", *remarks])))
    worst = mistakes(found, settings.show)
    if settings.show and not worst:
        print("no mistakes to show: every example is right")
    for mistake in worst:
        console.print()
        for name, value in mistake.items():
            console.print(Text(f"{name:>10}  ", style="dim") + Text(visible(str(value))))


def evaluate_harness(settings: Evaluate) -> None:
    """`hornbook evaluate RUN --harness hellaswag`."""
    from hornbook.evaluation.harness import harness

    found = harness(settings.run, settings.harness, settings.limit, batch=settings.batch, device=settings.device)
    print(json.dumps(found.figures) if settings.json else found.table)


def tutorial(settings: Evaluate) -> None:
    """`hornbook evaluate bigram CORPUS --protocol tutorial`, or a run in the place of `bigram`."""
    from hornbook.text.corpora import open_corpus

    corpus = open_corpus(settings.corpus, settings.column)
    lines = (line for document in corpus.documents(settings.part) for line in document.splitlines())
    if settings.run == "bigram":
        from hornbook.evaluation.tutorial import explain, tutorial_bigram

        train_lines = (line for document in corpus.documents("train") for line in document.splitlines())
        found = tutorial_bigram(train_lines, lines)
        if settings.json:
            print(json.dumps({"perplexity": found.tutorial_perplexity, "honest_perplexity": found.honest_perplexity}))
            return
        print(explain(found))
        for text in settings.text:
            pairs = found.sentence_pairs(text)
            print(f"{text!r}: log-probability {found.sentence_log_prob(text):.4f} nats over {len(pairs)} pairs")
        return
    from hornbook.evaluation.lines import score_lines

    model = opened(settings)
    score = score_lines(model, model.tokenizer, lines)
    if settings.json:
        print(json.dumps({"perplexity": score.perplexity, "targets": score.targets}))
        return
    print(
        f"perplexity {score.perplexity:,.2f} by the tutorials' protocol: {corpus.name} {settings.part}, each line by "
        f"itself and cut at {score.cut} tokens, {score.targets:,} targets.\n"
        f"The cut drops {score.lost / score.tokens:.1%} of the tokens, no line sees the one before it, and the figure "
        "only compares models with this tokeniser. For one that compares: the same command without --protocol."
    )


def print_sentences(sentences: list[Sentence], as_json: bool) -> None:
    """The sentences side by side: the probability of each, and the surprise of every token in it."""
    from hornbook.evaluation.score import finite

    if as_json:
        rows = [
            {"text": s.text, "log_prob": finite(s.log_prob), "pieces": s.pieces, "bits": list(map(finite, s.bits))}
            for s in sentences
        ]
        print(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 4, 0, 0))
    columns = []
    for s in sentences:
        table.add_column(Text(repr(s.text)))
        tokens = [f"{bits:7.2f} bits  {piece!r}" for piece, bits in zip(s.pieces, s.bits, strict=True)]
        unknown = [f"unknown to the tokeniser: {', '.join(map(repr, s.unknown))}"] if s.unknown else []
        columns.append([f"probability {s.probability}", f"log-probability {s.log_prob:.4f} nats", *tokens, *unknown])
    for row in itertools.zip_longest(*columns, fillvalue=""):
        table.add_row(*map(Text, row))
    console.print(table)


def print_classes(found: list[Classified], as_json: bool) -> None:
    """A table for every text: its classes, the likeliest first, and what was cut of it."""
    if as_json:
        rows = [{"text": one.text, "classes": one.classes} | ({"note": one.note} if one.note else {}) for one in found]
        print(json.dumps(rows))
        return
    for number, one in enumerate(found):
        if number:
            print()
        name = one.text if len(one.text) <= LONGEST_NAME else f"{one.text[: LONGEST_NAME - 3]}..."
        shares = [[visible(label), f"{chance:.4f}"] for label, chance in one.classes.items()]
        print_table([[repr(name), "probability"], *shares])
        if one.note:
            print(one.note)


def opened(settings: Evaluate) -> LanguageModel:
    """The model that a command names, on the device that it names or the best one here."""
    from hornbook import machine
    from hornbook.checkpoint import load

    return load(settings.run, settings.device or machine.pick_device(), text=True)
