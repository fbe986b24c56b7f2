"""A task as a session's work: its examples packed into rows, its objective, its own score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hornbook.config import Finetune
from hornbook.data.batches import Batch
from hornbook.data.packing import Packed, Piece
from hornbook.errors import UserError
from hornbook.evaluation.judging import batches, judge, put, read
from hornbook.layers.model import LanguageModel
from hornbook.lessons import Lessons
from hornbook.progress import Bar
from hornbook.tasks import Asked, Choice, Labelled, Preference, Task
from hornbook.training.engine import place, precision
from hornbook.training.objective import ClassObjective, Objective, PreferenceObjective
from hornbook.training.work import Looked, Show


class TaskWork:
    """What a session needs to teach a task."""

    def __init__(
        self,
        settings: Finetune,
        model: LanguageModel,
        task: Task,
        context: int,
        examples: Sequence[Any],
        pieces: Sequence[Piece],
    ) -> None:
        """`context`: tokens of an example at most; `settings.context`: of a row."""
        assert settings.context is not None
        assert settings.batch != "auto"
        self.settings, self.model, self.task, self.most = settings, model, task, context
        self.context = settings.context
        self.lessons = Lessons(model, task, context, settings.cut or "")
        self.validation = list(islice(task.examples("validation"), settings.eval_examples))
        if not self.validation:
            raise UserError(f"there is no example in the validation split of {task.name}")
        self.objective = self.make_objective(examples)
        fitting = [] if task.kind is Labelled else self.lessons.fitting(self.validation)
        self.fitting, self.held = [example for example, _ in fitting], [piece for _, piece in fitting]
        self.autocast = precision(settings, torch.device(settings.device or "cpu"))
        if task.kind is Preference:
            place(model, settings)
            with self.autocast():
                pieces, self.held = (with_reference(model, some) for some in (pieces, self.held))
        self.packed = Packed(pieces, settings.batch, self.context, settings.seed)
        self.per_epoch, self.read_by_batch = self.packed.per_epoch, 1 / self.packed.per_epoch

    def make_objective(self, examples: Sequence[Any]) -> nn.Module:
        if self.task.kind is Preference:
            return PreferenceObjective(self.model, self.settings.beta)
        if self.task.kind is not Labelled:
            return Objective(self.model)
        weights = None
        if self.settings.class_weights == "balanced":
            weights = balanced(self.model.config.labels, [example.label for example in examples])
        return ClassObjective(self.model, weights)

    def told(self) -> str:
        """In a line."""
        rows = self.per_epoch * self.packed.batch
        each = len(self.packed.pieces) / rows * self.packed.batch * self.settings.accumulate
        filled = self.packed.lengths.sum() / (rows * self.context)
        return f"{filled:.0%} filled, about {each:.0f} examples a step"

    def batch(self, k: int) -> Batch:
        return self.packed.get(k)

    def evaluate(self, show: Show) -> Looked:
        """By the task's own score, or where texts are written that are not to be scored, by the loss alone."""
        kind = self.task.kind
        if kind is Preference:
            return self.preferences()
        if kind in (Labelled, Choice) or (self.settings.score_generated and kind is Asked):
            return self.scored(show)
        loss = self.loss(show)
        return Looked(loss, {"validation_loss": loss}, self.sample())

    def loss(self, show: Show) -> float:
        """On the right answers, in nats a token."""
        found = read_pieces(self.model, self.held, show)
        return -sum(nats for nats, _ in found) / max(1, sum(count for _, count in found))

    def scored(self, show: Show) -> Looked:
        """By the task's own score; of equal scores by the loss, for a few hundred examples leave many equal."""
        judged = put(self.model, self.task, "validation", self.validation, self.most, self.lessons.cut, show)
        figures = {f"validation_{name}": figure.value for name, figure in judged.figures.items()}
        if self.task.kind is Labelled:
            return Looked(-judged.headline, figures, loss=figures["validation_log_loss"])
        figures["validation_loss"] = self.loss(show)
        sample = judged.outputs[0] if self.task.kind is Asked else None
        return Looked(-judged.headline, figures, sample, figures["validation_loss"])

    def sample(self) -> str | None:
        """What the model writes for the first validation example."""
        if self.task.kind is Asked:
            found = put(self.model, self.task, "validation", self.validation[:1], self.most, self.lessons.cut)
            return next(iter(found.outputs), None)
        return None

    def preferences(self) -> Looked:
        """By how often the better answer is the likelier, of equal scores by the loss; beside them the rewards."""
        own, begun = self.answers()
        marks = [self.task.score(example, pair) for example, pair in zip(self.fitting, own.tolist(), strict=True)]
        figures = {f"validation_{name}": mean([mark[name] for mark in marks]) for name in marks[0]}
        more = rewards(own, begun, self.settings.beta)
        name = f"validation_{self.task.headline}"
        return Looked(-figures[name], {name: figures[name]} | more | figures, loss=more["validation_loss"])

    def answers(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The log-probabilities of the better and the other answer of each pair that is held out, in nats (P,2): the
        model's, and the reference's."""
        with self.autocast():
            given = log_probs(self.model, self.held)
        references = [piece.reference for piece in self.held if piece.reference is not None]
        return halves(self.held, given), halves(self.held, references)

    def summary(self, show: Show) -> dict[str, Any]:
        """The task's scores on the validation examples, beside the baselines'."""
        limit = self.settings.eval_examples
        found = judge(self.model, self.task, "validation", limit, self.most, self.lessons.cut, show=show)
        more = rewards(*self.answers(), self.settings.beta) if self.task.kind is Preference else {}
        return {"sample": self.sample(), "scores": found.summary()} | more


def balanced(labels: Sequence[str], found: Sequence[str]) -> list[float]:
    """What an example of each class counts, so that all classes count alike and an example 1 on average."""
    return [len(found) / (len(labels) * max(1, found.count(label))) for label in labels]


def read_pieces(model: LanguageModel, pieces: Sequence[Piece], show: Show) -> list[tuple[float, int]]:
    """(log-probability of its targets in nats, how many they are) of every piece."""
    with torch.inference_mode():
        return [(nats, count) for nats, count, _ in read(model, pieces, show)]


def rewards(own: NDArray[np.float64], begun: NDArray[np.float64], beta: float) -> dict[str, float]:
    """The loss, and what DPO's implicit rewards say, beta times what each answer (P,2) has gained on the reference.

    Equal rewards, as those of a model that has not moved, count as half right.
    """
    gains = own - begun
    margins = beta * (gains[:, 0] - gains[:, 1])
    return {
        "validation_reward_accuracy": mean((margins > 0) + 0.5 * (margins == 0)),
        "validation_reward_margin": mean(margins),
        "validation_loss": mean(np.logaddexp(0.0, -margins)),
    }


def mean(values: Any) -> float:
    return float(np.mean(values))


def halves(pieces: Sequence[Piece], known: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """What is known of each target, summed over the two answers of each pair (P,2)."""
    both = zip(pieces, known, strict=True)
    return np.array([[some[piece.own == n].sum(dtype=np.float64) for n in (1, 2)] for piece, some in both])


def with_reference(model: LanguageModel, pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces with the log-probability that the model, as it is now, gives each target."""
    with Bar("reference") as bar:
        given = log_probs(model, pieces, bar.show)
    return [replace(piece, reference=known) for piece, known in zip(pieces, given, strict=True)]


@torch.inference_mode()
def log_probs(
    model: LanguageModel, pieces: Sequence[Piece], show: Show = lambda done, total: None
) -> list[NDArray[np.float32]]:
    """The log-probability of each target of every piece, in nats (n,); 0 where there is none. Without dropout."""
    found: dict[int, NDArray[np.float32]] = {}
    was_training = model.training
    model.eval()
    for group, batch in batches(pieces, model.device):
        given = model.log_prob(batch.tokens, batch.targets, segments=batch.segments).cpu().numpy()
        found |= {i: given[row, : len(pieces[i])] for row, i in enumerate(group)}
        show(len(found), len(pieces))
    model.train(was_training)
    return [found[i] for i in range(len(pieces))]
