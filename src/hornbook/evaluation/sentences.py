"""What a model makes of one text: its probability, token by token, or its classes.

Logarithms are summed, so nothing underflows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from hornbook.errors import UserError
from hornbook.evaluation.judging import put
from hornbook.evaluation.score import require_causal
from hornbook.layers.model import LanguageModel
from hornbook.tasks import Labelled
from hornbook.tasks.classify import labelled


@dataclass(frozen=True)
class Sentence:
    """A text's tokens and the natural logarithm of each one's probability, given all before it."""

    text: str
    pieces: list[str]
    nats: list[float]
    unknown: list[str]
    """Pieces that the tokeniser does not know."""

    @property
    def log_prob(self) -> float:
        """Natural logarithm of the whole sentence's probability."""
        return math.fsum(self.nats)

    @property
    def probability(self) -> str:
        """The probability in scientific notation, written from its logarithm: a float may be too small for it."""
        if math.isinf(self.log_prob):
            return "0"
        exponent = math.floor(self.log_prob / math.log(10))
        mantissa = round(math.exp(self.log_prob - exponent * math.log(10)), 3)
        if mantissa >= 10:
            mantissa, exponent = mantissa / 10, exponent + 1
        return f"{mantissa:.3f}e{exponent:+03d}"

    @property
    def bits(self) -> list[float]:
        """Surprise of each token."""
        return [-n / math.log(2) for n in self.nats]


@torch.inference_mode()
def score_sentence(model: LanguageModel, text: str) -> Sentence:
    """Score `text` as the beginning of a document: the separator stands before it and is not scored."""
    require_causal(model)
    tokenizer = model.tokenizer
    ids = tokenizer.encode(text)
    if not ids:
        raise UserError("there is no token in the text")
    opening = [model.config.bos if model.config.bos is not None else ids.pop(0)]
    if not ids:
        raise UserError(
            "the text is one token, and this model has no other to stand before it: nothing is left to score"
        )
    if len(ids) > model.config.context:
        raise UserError(f"the text has {len(ids)} tokens and the context {model.config.context}: shorten it")
    device = model.device
    tokens = torch.tensor([opening + ids[:-1]], device=device)
    found = model.log_prob(tokens, torch.tensor([ids], device=device))[0].cpu().double().tolist()
    pieces = [tokenizer.piece(i) for i in ids]
    known = [piece for piece, i in zip(pieces, ids, strict=True) if i == tokenizer.unk]
    return Sentence(text, pieces, found, known)


@dataclass(frozen=True)
class Classified:
    """A text, and what a classifier makes of it."""

    text: str
    classes: dict[str, float]
    """The probability of every class, the likeliest first."""
    note: str
    """What was cut."""


def classify_text(model: LanguageModel, text: str, context: int | None = None, cut: str = "") -> Classified:
    """The classes of a text of which `context` tokens are read, by default as many as the model can.

    `cut` (head, tail or head+tail) is what is kept of a longer one. UserError for a text without a token, and a model
    without a class head.
    """
    if not model.tokenizer.encode(text):
        raise UserError("there is no token in the text")
    any_class = next(iter(model.config.labels), "")
    found = put(model, labelled("classify", lambda split: iter(())), "text", [Labelled(text, any_class)], context, cut)
    likeliest = sorted(found.outputs[0].items(), key=lambda pair: -pair[1])
    return Classified(text, dict(likeliest), found.note)
