"""What well-known models reach: levels to draw beside a run's own curves. No torch, so that a report can use it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """One figure of one model, as somebody measured it."""

    name: str
    figure: str
    """Its name in a run's metrics.jsonl."""
    value: float
    protocol: str
    source: str
    data: tuple[str, ...] = ()
    """The corpora to which the figure belongs; empty for a task, whose text is its own."""
    vocab: int | None = None
    """The vocabulary without which it says nothing: nats a token compare within one tokeniser only."""


GPT2 = "OpenAI's GPT-2 (124M)"
HARNESS = "lm-evaluation-harness, hellaswag version 1, zero-shot, all 10,042 items"
PLAIN = "texts as they are, all 10,042 items"
NANOGPT = "github.com/karpathy/build-nanogpt"

REFERENCES = (
    Reference(GPT2, "hellaswag_accuracy", 0.2892, f"{HARNESS}: acc", f"{NANOGPT}, hellaswag.py"),
    Reference(GPT2, "hellaswag_accuracy_per_character", 0.3114, f"{HARNESS}: acc_norm", f"{NANOGPT}, hellaswag.py"),
    Reference(GPT2, "hellaswag_plain_accuracy", 0.2859, PLAIN, f"{NANOGPT}, hellaswag.py"),
    Reference(GPT2, "hellaswag_plain_accuracy_per_token", 0.2955, PLAIN, f"{NANOGPT}, hellaswag.py"),
    Reference(
        GPT2,
        "validation_loss",
        3.2924,
        "rows of 1,024 tokens packed across documents, from the first 100 million tokens of the sample; here documents "
        "are scored one by one, so that the level is near, not equal",
        f"{NANOGPT}, play.ipynb",
        ("fineweb-edu", "fineweb-edu-1"),
        50257,
    ),
)


def references(figure: str, data: str | None = None, vocab: int | None = None) -> list[Reference]:
    """The levels for a figure of a run that was trained on the corpus `data` with `vocab` token ids."""
    found = [r for r in REFERENCES if r.figure == figure]
    return [r for r in found if (not r.data or data in r.data) and r.vocab in (None, vocab)]
