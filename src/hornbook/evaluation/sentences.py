"""The probability of a sentence, token by token. Logarithms are summed, so nothing underflows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from hornbook.errors import UserError
from hornbook.evaluation.score import require_causal
from hornbook.layers.model import LanguageModel


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
        return f"{math.exp(self.log_prob - exponent * math.log(10)):.3f}e{exponent:+03d}"

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
    if len(ids) > model.config.context:
        raise UserError(f"the text has {len(ids)} tokens and the context {model.config.context}: shorten it")
    device = model.device
    tokens = torch.tensor([opening + ids[:-1]], device=device)
    found = model.log_prob(tokens, torch.tensor([ids], device=device))[0].cpu().double().tolist()
    pieces = [tokenizer.piece(i) for i in ids]
    known = [piece for piece, i in zip(pieces, ids, strict=True) if i == tokenizer.unk]
    return Sentence(text, pieces, found, known)
