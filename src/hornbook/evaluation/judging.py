"""A model at work on a task: its outputs, their scores with intervals, and beside them what knows nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

import torch

from hornbook.config import Sampling
from hornbook.data.batches import NO_TARGET, Batch
from hornbook.data.packing import Piece, stacked
from hornbook.errors import UserError, listing
from hornbook.evaluation.choices import choice_log_probs, padded
from hornbook.evaluation.score import finite, require_causal
from hornbook.generation.answers import Answer, Request
from hornbook.generation.engine import Engine
from hornbook.layers import class_head
from hornbook.layers.model import LanguageModel
from hornbook.lessons import Lessons
from hornbook.scoring.intervals import Figure, estimate, wilson
from hornbook.tasks import Asked, Choice, Dialogue, Labelled, LastWord, Preference, Task

Show = Callable[[int, int], None]
ROWS = 16
"""Answers that are written at once."""
GREEDY = Sampling(temperature=0.0)
BUDGET = 8192
"""Tokens, padding included, that are read at once."""


@dataclass(frozen=True)
class Judged:
    """Outputs on the examples of one split."""

    task: Task
    split: str
    examples: list[Any]
    """Those that fit; how many did not is in the note."""
    outputs: list[Any]
    baselines: dict[str, list[Any]] = field(default_factory=dict)
    """Outputs of those who know nothing, by name."""
    note: str = ""
    """What was cut."""
    tokens: int | None = None
    """Written, where texts were."""
    ended: int | None = None
    """Of them, those that ended by themselves."""

    @cached_property
    def marks(self) -> list[dict[str, float]]:
        """One an example."""
        return [self.task.score(example, output) for example, output in zip(self.examples, self.outputs, strict=True)]

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The model's, the task's headline first."""
        return figures_of(self.task, self.examples, self.outputs, self.marks)

    @cached_property
    def others(self) -> dict[str, dict[str, Figure]]:
        """The baselines'."""
        return {name: figures_of(self.task, self.examples, outputs) for name, outputs in self.baselines.items()}

    @property
    def headline(self) -> float:
        return self.figures[self.task.headline].value

    def summary(self) -> dict[str, Any]:
        """What summary.json and --json say."""
        rest = {"tokens": self.tokens, "ended": self.ended, "chance": self.task.chance, "note": self.note or None}
        told = {"task": self.task.name, "split": self.split, "examples": len(self.examples)}
        scores: dict[str, Any] = {"headline": self.task.headline, "figures": spelled(self.figures)}
        if self.task.signatures is not None:
            scores["signatures"] = self.task.signatures(self.examples, self.outputs)
        others = {"baselines": {name: spelled(figures) for name, figures in self.others.items()}}
        return told | scores | others | {key: value for key, value in rest.items() if value is not None}


def spelled(figures: Mapping[str, Figure]) -> dict[str, dict[str, float | None]]:
    return {
        name: {part: None if number is None else finite(float(number)) for part, number in vars(figure).items()}
        for name, figure in figures.items()
    }


def figures_of(
    task: Task, examples: Sequence[Any], outputs: Sequence[Any], marks: Sequence[Mapping[str, float]] | None = None
) -> dict[str, Figure]:
    """Means of marks, and the task's own figures; the headline first."""
    marks = marks or [task.score(example, output) for example, output in zip(examples, outputs, strict=True)]
    found = {name: mean_figure([mark[name] for mark in marks]) for name in marks[0]}
    found |= task.figures(examples, outputs) if task.figures else {}
    return {task.headline: found[task.headline]} | found


def mean_figure(values: Sequence[float]) -> Figure:
    """A share of right answers with Wilson's interval, any other mean with the bootstrap's."""
    if set(values) <= {0.0, 1.0}:
        share = sum(values) / len(values)
        return Figure(share, *wilson(share, len(values)))
    return estimate(values)


def judge(
    model: LanguageModel,
    task: Task,
    split: str,
    limit: int = 0,
    context: int | None = None,
    cut: str = "",
    baselines: bool = True,
    show: Show = lambda done, total: None,
) -> Judged:
    """Put the first `limit` examples of a split (0: all) to a model, which is left in the mode it came in.

    UserError for a split without examples, or of which none fits, and a model that cannot do such a task.
    """
    examples = list(islice(task.examples(split), limit or None))
    if not examples:
        raise UserError(f"there is no example in the {split} split of {task.name}")
    found = put(model, task, split, examples, context, cut, show)
    if not found.examples:
        raise UserError(f"none of the {len(examples):,} examples of {task.name} fits: {found.note}")
    if not baselines or not task.baselines:
        return found
    made, note = compared(task, split, found.examples)
    return replace(found, baselines=made, note="; ".join(filter(None, [found.note, note])))


def compared(task: Task, split: str, examples: list[Any]) -> tuple[dict[str, list[Any]], str]:
    """The baselines' outputs on examples of a split, and what is to be said of them."""
    own = split in ("train", "all")
    train = list(task.examples(split if own else "train")) if task.kind is Labelled else []
    made = {name: make(train, examples) for name, make in task.baselines.items()}
    return made, "baselines learn from the other rows of the same split" if own and train else ""


def put(
    model: LanguageModel,
    task: Task,
    split: str,
    examples: list[Any],
    context: int | None = None,
    cut: str = "",
    show: Show = lambda done, total: None,
) -> Judged:
    """The model's outputs on examples."""
    lessons = Lessons(model, task, min(context or model.config.context, model.config.context), cut)
    was_training = model.training
    model.eval()
    tokens = ended = None
    with torch.inference_mode():
        if task.kind is Asked:
            outputs, tokens, ended = written(model, lessons, examples, show)
        else:
            outputs = WAYS[task.kind](model, lessons, examples, show)
    model.train(was_training)
    answered = [(example, output) for example, output in zip(examples, outputs, strict=True) if output is not None]
    examples, outputs = [example for example, _ in answered], [output for _, output in answered]
    return Judged(task, split, examples, outputs, note=told(lessons, examples), tokens=tokens, ended=ended)


def told(lessons: Lessons, examples: Sequence[Any]) -> str:
    """What was cut, left out, or cannot be right."""
    said = [lessons.counts.told("tail" if lessons.task.kind in (Choice, LastWord) else lessons.cut, lessons.context)]
    known = lessons.config.labels
    if lessons.task.kind is Labelled and (strange := [e.label for e in examples if e.label not in known]):
        said.append(
            f"{len(strange):,} examples are of classes that this model was not taught ({listing(sorted(set(strange)))})"
            " and count as mistakes"
        )
    return "; ".join(filter(None, said))


def classified(
    model: LanguageModel, lessons: Lessons, examples: Sequence[Labelled], show: Show
) -> list[dict[str, float]]:
    """The probabilities of the model's labels. UserError for a model without a class head, or none of these labels."""
    labels = model.config.labels
    if not labels:
        raise UserError(
            f"this model predicts tokens, and tells no classes apart: teach it, as in hornbook finetune RUN "
            f"{lessons.task.name}"
        )
    if not (wanted := {example.label for example in examples}) & set(labels):
        raise UserError(
            f"the labels {listing(sorted(wanted))} are none that this model was taught: {listing(labels, 20)}"
        )
    rows = [lessons.text_ids(example.text) for example in examples]
    lessons.counts.read += len(rows)
    found: dict[int, dict[str, float]] = {}
    for group in groups([len(row) for row in rows]):
        tokens, segments = padded([rows[i] for i in group], model.device)
        hidden = model.hidden(tokens, segments=segments)
        places = class_head.judged_places(tokens, segments, model.causal)
        logits = model.class_logits(hidden[torch.arange(len(group), device=model.device), places])
        for i, chances in zip(group, logits.float().softmax(-1).tolist(), strict=True):
            found[i] = dict(zip(labels, chances, strict=True))
        show(len(found), len(rows))
    return [found[i] for i in range(len(rows))]


def chosen(model: LanguageModel, lessons: Lessons, examples: Sequence[Choice], show: Show) -> list[Any]:
    """The log-probabilities of endings."""
    lessons.counts.read += len(examples)
    return choice_log_probs(model, examples, progress=show, context=lessons.context)


def finished(model: LanguageModel, lessons: Lessons, examples: Sequence[LastWord], show: Show) -> list[Any]:
    """(log-probability of the last word, whether it is what the likeliest tokens say); None for a word that nothing
    comes before. As the harness encodes it."""
    require_causal(model)
    pieces = counted(lessons, map(lessons.piece, examples))
    scores = iter(read(model, [piece for piece in pieces if piece is not None], show))
    return [None if piece is None else next(scores)[::2] for piece in pieces]


def counted(lessons: Lessons, pieces: Iterable[Piece | None]) -> list[Piece | None]:
    """Pieces, None for an example that does not fit, all of which are counted."""
    found = list(pieces)
    lessons.counts.read += len(found)
    lessons.counts.skipped += sum(piece is None for piece in found)
    return found


def discussed(model: LanguageModel, lessons: Lessons, examples: Sequence[Dialogue], show: Show) -> list[Any]:
    """(log-probability of the assistant's turns, their tokens); None for what does not fit."""
    require_causal(model)
    pieces = counted(lessons, map(lessons.piece, examples))
    scores = iter(read(model, [piece for piece in pieces if piece is not None], show))
    return [None if piece is None else next(scores)[:2] for piece in pieces]


def preferred(model: LanguageModel, lessons: Lessons, examples: Sequence[Preference], show: Show) -> list[Any]:
    """(log-probability of the better answer, of the other one); None for what does not fit."""
    require_causal(model)
    pieces = counted(lessons, map(lessons.piece, examples))
    halves = [half for piece in pieces if piece is not None for half in pair(piece)]
    scores = iter(read(model, halves, show))
    return [None if piece is None else (next(scores)[0], next(scores)[0]) for piece in pieces]


def pair(piece: Piece) -> tuple[Piece, Piece]:
    """The two segments of a preference, each as a piece."""
    return tuple(Piece(piece.tokens[at], piece.targets[at]) for at in (piece.own == 1, piece.own == 2))  # type: ignore[return-value]


WAYS: dict[type, Callable[[LanguageModel, Lessons, Any, Show], list[Any]]] = {
    Labelled: classified,
    Choice: chosen,
    LastWord: finished,
    Dialogue: discussed,
    Preference: preferred,
}


def written(
    model: LanguageModel, lessons: Lessons, examples: Sequence[Asked], show: Show
) -> tuple[list[str | None], int, int]:
    """Greedy answers, None where the prompt leaves no room; how many tokens they have together, and how many ended by
    themselves."""
    require_causal(model)
    engine, ends = Engine(model, rows=ROWS), frozenset({lessons.end})
    answers: list[Answer | None] = []
    for example in examples:
        prompt, source = lessons.prompt(example)
        lessons.counts.read += 1
        room = min(lessons.task.tokens, model.config.context - len(prompt) + source)
        fits = room > 0 and source <= model.config.context
        lessons.counts.skipped += not fits
        wanted = Request(prompt, room, GREEDY, stop_tokens=ends, source=source)
        answers.append(engine.submit(wanted) if fits else None)
    begun = [answer for answer in answers if answer is not None]
    while any(answer.finish is None for answer in begun):
        engine.step()
        show(sum(answer.finish is not None for answer in begun), len(begun))
    tokens = sum(len(answer.new) for answer in begun)
    texts = [None if answer is None else answer.text.strip() for answer in answers]
    return texts, tokens, sum(answer.finish == "stop" for answer in begun)


def read(model: LanguageModel, pieces: Sequence[Piece], show: Show) -> list[tuple[float, int, bool]]:
    """(log-probability of the targets in nats, how many they are, whether each is the likeliest) of every piece."""
    found: dict[int, tuple[float, int, bool]] = {}
    for group, batch in batches(pieces, model.device):
        learnt = batch.targets != NO_TARGET
        logits = model.head(model.hidden(batch.tokens, segments=batch.segments)[learnt]).float()
        nats = -torch.nn.functional.cross_entropy(logits, batch.targets[learnt], reduction="none")
        sums = nats.new_zeros(learnt.shape).masked_scatter(learnt, nats).cpu().double().sum(1).tolist()
        wrong = (logits.argmax(-1) != batch.targets[learnt]).long()
        right = (learnt.long().masked_scatter(learnt, wrong).sum(1) == 0).tolist()
        for i, total, fits in zip(group, sums, right, strict=True):
            found[i] = (total, int((pieces[i].targets != NO_TARGET).sum()), fits)
        show(len(found), len(pieces))
    return [found[i] for i in range(len(pieces))]


def batches(pieces: Sequence[Piece], device: torch.device) -> Iterator[tuple[list[int], Batch]]:
    """All pieces, a row each, those of like length together: their numbers, and the batch."""
    for group in groups([len(piece) for piece in pieces]):
        yield group, stacked([[pieces[i]] for i in group], max(len(pieces[i]) for i in group)).to(device)


def groups(lengths: Sequence[int]) -> Iterable[list[int]]:
    """Numbers of rows of like length, of BUDGET tokens together; the longest come first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    at = 0
    while at < len(order):
        rows = max(1, BUDGET // max(1, lengths[order[at]]))
        yield order[at : at + rows]
        at += rows
