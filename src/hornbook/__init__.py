"""Hornbook: every classic language model, from counting word pairs to Llama 3, on one small codebase.

    import hornbook
    hornbook.train("llama-tiny", data="python-docs", minutes=1, out="runs/x")
    model = hornbook.load("runs/x")             # model(tokens (B,T)) -> logits (B,T,V)
    print(hornbook.generate("runs/x", "The "))

Every verb takes the fields of its settings class in `hornbook.config`; nothing heavy is imported before it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hornbook.evaluation.score import Scores
    from hornbook.layers.model import LanguageModel
    from hornbook.report.page import Rung

__version__ = "0.1.0"
__all__ = ["evaluate", "generate", "ladder", "load", "train"]


def load(source: str, device: str | None = None) -> LanguageModel:
    """The model of a run or Hugging Face folder; `model(tokens (B,T))` gives logits, `model.tokenizer` cuts text."""
    from hornbook.checkpoint import load

    return load(source, device)


def train(model: str, **fields: Any) -> dict[str, Any]:
    """Train a rung (fields of `config.Train`); returns its summary."""
    from hornbook.config import Train
    from hornbook.training.pretrain import train

    return train(Train(model, **fields))


def evaluate(run: str, data: str = "python-docs", **fields: Any) -> Scores:
    """Score a run on a split of a corpus (fields of `config.Evaluate`; sentences: `evaluation.sentences`)."""
    from hornbook.config import Evaluate
    from hornbook.errors import UserError
    from hornbook.evaluation.measure import measure

    settings = Evaluate(run, data, **fields)
    if settings.text or settings.protocol != "honest":
        raise UserError("evaluate scores a corpus; for sentences there is evaluation.sentences.score_sentence")
    return measure(settings)


def generate(run: str, prompt: str, **fields: Any) -> str:
    """What a run writes after `prompt` (fields of `config.Generate`), without the prompt; one sample a call."""
    from hornbook.checkpoint import load
    from hornbook.config import Generate
    from hornbook.generation.stream import continuation

    settings = Generate(run, prompt, **fields)
    return "".join(continuation(load(run, settings.device), prompt, settings))


def ladder(**fields: Any) -> list[Rung]:
    """Climb every rung on one text (fields of `config.Ladder`)."""
    from hornbook.config import Ladder
    from hornbook.ladder import climb

    return climb(Ladder(**fields))
