"""`hornbook evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from hornbook.config.checks import above_zero, check_pairs, require_words, zero_or_more
from hornbook.errors import UserError


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on one scale: hornbook evaluate runs/x wikitext-2"""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, or anything else that can be loaded."""
    data: Annotated[Positional[str | None], arg(metavar="DATA")] = None
    """A corpus by name, or a file, a folder, a prepared corpus, or - for standard input; or a task: hellaswag, imdb,
    ... Default what the run learnt from, else python-docs."""
    split: Literal["train", "validation", "test", "all"] | None = None
    """Default validation; of a task test, and all of a file that the run did not learn from."""
    column: str = "text"
    task: str | None = None
    """What a file of examples is for: classify, summarise, ...; default what the run was taught."""
    columns: UseAppendAction[tuple[str, ...]] = ()
    """Tasks: a column that is called otherwise here, as in --columns text=review; may be given several times."""
    target: str | None = None
    """Translation: the file with the other side, a line each."""
    options: UseAppendAction[tuple[str, ...]] = ()
    """What a task alone understands, as in --options from=en; may be given several times."""
    cut: Literal["head", "tail", "head+tail"] | None = None
    """Tasks: what is kept of a text that is too long; default what the run was taught with, else the task's rule."""
    show: int = 0
    """Tasks: list so many of the worst mistakes."""
    baselines: bool = True
    """Tasks: score beside the model what knows nothing, on the same examples."""
    harness: tuple[str, ...] = ()
    """Tasks of EleutherAI's lm-evaluation-harness instead, run by it: hellaswag arc_easy, or hellaswag,arc_easy."""
    text: UseAppendAction[tuple[str, ...]] = ()
    """A sentence to score by itself, token by token, or a text for a classifier; may be given several times."""
    protocol: Literal["honest", "tutorial"] = "honest"
    """'tutorial' repeats a tutorial's own way of measuring, and says how it differs."""
    context: int | None = None
    """Tokens in a window; default the model's."""
    stride: int | None = None
    """Targets that each further window adds; default half the context."""
    batch: int = 32
    limit: int = 0
    """Use only so many tokens of the split, or examples of a task; 0 for all."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 reads several times as fast where the hardware multiplies it, and rounds: last digits may differ."""
    device: str | None = None
    """cpu, cuda or mps; default the best there is."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        require_words(self)
        above_zero(self, "context", "stride", "batch")
        zero_or_more(self, "limit", "show")
        check_pairs((*self.columns, *self.options))

    @property
    def corpus(self) -> str:
        """The name of the text, where that is what is scored."""
        return self.data or "python-docs"

    @property
    def part(self) -> str:
        """Its split. UserError for all of them."""
        if self.split == "all":
            raise UserError(f"--split all is for files of examples: {self.corpus} has train, validation and test")
        return self.split or "validation"
