"""`hornbook finetune`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from hornbook.config.checks import above_zero, check_pairs, zero_or_more
from hornbook.config.learning import Learning


@dataclass(frozen=True)
class Finetune(Learning):
    """Teach a model a task: hornbook finetune runs/x reviews.csv --text review --label stars"""

    model: Annotated[Positional[str], arg(metavar="RUN")]
    """A run, a model folder, hf:owner/name; or a named size, to learn from nothing."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """A task by name, with its published data (imdb, cnn-dailymail, multi30k, squad, ...), or a file of yours: .csv,
    .tsv, .json, .jsonl or .parquet."""
    task: str | None = None
    """What a file is for: classify, summarise, translate, answer, chat, instruct, prefer, multiple-choice; default what
    its columns suggest."""
    text: str | None = None
    """The column with the text to classify."""
    label: str | None = None
    """The column with its class."""
    columns: UseAppendAction[tuple[str, ...]] = ()
    """Any other column that is called otherwise here, as in --columns article=body; may be given several times."""
    target: str | None = None
    """Translation: the file with the other side, a line each."""
    options: UseAppendAction[tuple[str, ...]] = ()
    """What a task alone understands, as in --options from=en --options to=de; may be given several times."""
    template: Literal["own", "chatml", "llama3", "plain"] = "own"
    """How conversations are spelled; own is the model's chat template, or plain for one that has none."""
    cut: Literal["head", "tail", "head+tail"] | None = None
    """What is kept of a text that is too long; default the task's own rule."""
    batch: int | Literal["auto"] = field(default=8, kw_only=True)
    """Rows in a batch, each of several examples where they are short; auto for the most that fit and are fastest."""
    weight_decay: float = field(default=0.01, kw_only=True)
    examples: int = 0
    """Learn from so many training examples only; 0 for all."""
    eval_examples: int = 500
    """Validation examples that an evaluation looks at, and so chooses the best checkpoint by."""
    score_generated: bool = False
    """Evaluations write the answers, and score those, instead of the loss on the right ones: slow."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: examples of rare classes count more, as if all were equally frequent."""
    beta: float = 0.1
    """Preferences: how strongly the model is held to where it began (DPO)."""
    tokenizer: str = "bpe"
    """From nothing: bpe, word, char, bytes, or a folder or file to load one from."""
    vocab: int | None = None
    """From nothing: the tokeniser's vocabulary; default 4,096 for bpe."""

    def __post_init__(self) -> None:
        super().__post_init__()
        above_zero(self, "eval_examples", "beta", "vocab")
        zero_or_more(self, "examples")
        check_pairs((*self.columns, *self.options))

    @property
    def apart(self) -> bool:
        return True
