"""What training minimises."""

from __future__ import annotations

from torch import Tensor, nn

from hornbook.data.batches import NO_TARGET
from hornbook.layers.model import LanguageModel


class Objective(nn.Module):
    """tokens, targets, segments (B,T) -> (sum of nats, number of targets). What compile and data parallel wrap.

    Sums, not means: the loss of a step is one sum over one count, however the step was cut into batches.
    """

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor, segments: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.model.nats(tokens, targets, segments), (targets != NO_TARGET).sum()
