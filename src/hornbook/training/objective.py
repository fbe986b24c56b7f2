"""What training minimises: modules around a model, which compile and data parallel wrap.

Each takes what a batch holds, (B,T) each, and gives a sum and how many things it is a sum over. Sums, not means: the
loss of a step is one sum over one count, however the step was cut into batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hornbook.data.batches import NO_TARGET
from hornbook.layers.model import LanguageModel


class Objective(nn.Module):
    """tokens, targets, segments -> (sum of nats, number of targets): the next token, or a hidden one."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor, segments: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.model.nats(tokens, targets, segments), (targets != NO_TARGET).sum()


class ClassObjective(nn.Module):
    """The same for classes: each target is one, at the position that it is read from."""

    def __init__(self, model: LanguageModel, weights: Sequence[float] | None = None) -> None:
        """`weights`: what an example of each class counts."""
        super().__init__()
        self.model = model
        self.weights: Tensor | None
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)

    def forward(self, tokens: Tensor, targets: Tensor, segments: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logits = self.model.class_logits(self.model.hidden(tokens, segments=segments)).float()
        nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), self.weights, reduction="sum")
        return nats, (targets != NO_TARGET).sum()


class PreferenceObjective(nn.Module):
    """Direct preference optimisation (Rafailov et al. 2023, equation 7): tokens, targets, segments, reference ->
    (sum of nats, number of pairs)."""

    def __init__(self, model: LanguageModel, beta: float = 0.1) -> None:
        super().__init__()
        self.model, self.beta = model, beta

    def forward(self, tokens: Tensor, targets: Tensor, segments: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        margins = self.margins(tokens, targets, segments, reference)
        return -F.logsigmoid(self.beta * margins).sum(), torch.tensor(len(margins))

    def margins(self, tokens: Tensor, targets: Tensor, segments: Tensor, reference: Tensor) -> Tensor:
        """(P,) by how many nats more than the reference the model favours the better answer of each pair."""
        return self.favour(self.model.hidden(tokens, segments=segments), targets, segments, reference)

    @torch.compiler.disable  # its shapes are other ones with each batch, and would be compiled for each
    def favour(self, hidden: Tensor, targets: Tensor, segments: Tensor, reference: Tensor) -> Tensor:
        """The same from the model's hidden states (B,T,C)."""
        learnt = targets != NO_TARGET
        logits = self.model.head(hidden[learnt]).float()
        found = -F.cross_entropy(logits, targets[learnt], reduction="none") - reference[learnt]
        most = int(segments.max())
        number = torch.arange(len(targets), device=targets.device)[:, None] * most + segments - 1
        sums = found.new_zeros(len(targets) * most).index_add(0, number[learnt], found)
        better, worse = sums[0::2], sums[1::2]
        there = number.new_zeros(len(sums), dtype=torch.bool).index_fill(0, number[segments > 0], True)[0::2]
        return (better - worse)[there]
