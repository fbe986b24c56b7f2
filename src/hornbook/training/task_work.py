"""A task as a session's work: its examples packed into rows, its objective, its own score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from hornbook.config import Finetune
from hornbook.data.batches import NO_TARGET, Batch
from hornbook.data.packing import Packed, Piece
from hornbook.errors import UserError
from hornbook.evaluation.judging import batches, judge, put, read
from hornbook.layers.model import LanguageModel
from hornbook.lessons import Lessons
from hornbook.progress import Bar
from hornbook.tasks import Asked, Labelled, Preference, Task
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
        self.held = [] if task.kind is Labelled else self.lessons.pieces(self.validation)
        if task.kind is Preference:
            pieces, self.held = (with_reference(model, some) for some in (pieces, self.held))
        self.packed = Packed(pieces, settings.batch, self.context, settings.seed)
        self.per_epoch = self.packed.per_epoch

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
        if self.task.kind is Preference:
            return self.preferences()
        if self.task.kind is Labelled or (self.settings.score_generated and self.task.kind is Asked):
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
        if self.task.kind is Asked:
            return Looked(-judged.headline, figures, judged.outputs[0], self.loss(show))
        return Looked(-judged.headline, figures, loss=figures["validation_log_loss"])

    def sample(self) -> str | None:
        """What the model writes for the first validation example."""
        if self.task.kind is Asked:
            found = put(self.model, self.task, "validation", self.validation[:1], self.most, self.lessons.cut)
            return next(iter(found.outputs), None)
        return None

    @torch.inference_mode()
    def preferences(self) -> Looked:
        """The loss, and how often the better answer has gained more on where the model began than the other one."""
        assert isinstance(self.objective, PreferenceObjective)
        margins = []
        for _, batch in batches(self.held, self.model.device):
            margins += self.objective.margins(*batch.arguments).tolist()
        found = torch.tensor(margins)
        loss = -nn.functional.logsigmoid(self.settings.beta * found).mean()
        right = (found > 0).float() + 0.5 * (found == 0).float()
        figures = {"validation_loss": float(loss), "validation_accuracy": float(right.mean())}
        return Looked(float(loss), figures | {"validation_margin": float(found.mean())})

    def summary(self, show: Show) -> dict[str, Any]:
        """The task's scores on the validation examples, beside the baselines'."""
        limit = self.settings.eval_examples
        found = judge(self.model, self.task, "validation", limit, self.most, self.lessons.cut, show=show)
        more = self.preferences().figures if self.task.kind is Preference else {}
        return {"sample": self.sample(), "scores": found.summary()} | more


def balanced(labels: Sequence[str], found: Sequence[str]) -> list[float]:
    """What an example of each class counts, so that all classes count alike and an example 1 on average."""
    return [len(found) / (len(labels) * max(1, found.count(label))) for label in labels]


def read_pieces(model: LanguageModel, pieces: Sequence[Piece], show: Show) -> list[tuple[float, int]]:
    """(log-probability of its targets in nats, how many they are) of every piece."""
    with torch.inference_mode():
        return [(nats, count) for nats, count, _ in read(model, pieces, show)]


@torch.inference_mode()
def with_reference(model: LanguageModel, pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces with the log-probability that the model, as it is now, gives each target."""
    was_training, found = model.training, dict[int, Piece]()
    model.eval()
    with Bar("reference") as bar:
        for group, batch in batches(pieces, model.device):
            given = model.log_prob(batch.tokens, batch.targets, segments=batch.segments).cpu().numpy()
            for row, i in enumerate(group):
                known = np.where(pieces[i].targets == NO_TARGET, 0, given[row, : len(pieces[i])]).astype(np.float32)
                found[i] = replace(pieces[i], reference=known)
            bar.show(len(found), len(pieces))
    model.train(was_training)
    return [found[i] for i in range(len(pieces))]
