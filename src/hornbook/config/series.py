"""Commands that train many models: `ladder`, `morph` and `sweep`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from hornbook.config.checks import above_zero, require_words, zero_or_more
from hornbook.config.learning import Train
from hornbook.errors import UserError


@dataclass(frozen=True)
class Ladder:
    """Climb every rung on one text: hornbook ladder"""

    data: Annotated[Positional[str], arg(metavar="DATA")] = "python-docs"
    """A corpus by name, or a file, a folder, or - for standard input."""
    out: str | None = None
    """The folder; default runs/ladder-DATA. The same command again carries on where it stopped."""
    minutes: float = 0.9
    """Wall-clock budget of each neural rung; counted ones take the seconds that they need."""
    rungs: tuple[str, ...] = (
        "bigram",
        "5gram",
        "rnn",
        "rnn-attention",
        "bert-tiny",
        "gpt2-tiny",
        "opt-tiny",
        "llama-tiny",
    )
    tokenizer: str = "bpe"
    """bpe, word, char, bytes, or a folder or file to load one from."""
    vocab: int | None = None
    """Vocabulary size of the tokeniser; default 4,096 for bpe, otherwise all that occur."""
    column: str = "text"
    prompt: str = "The"
    """What every rung's sample begins with."""
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        require_words(self)
        above_zero(self, "minutes", "vocab")
        zero_or_more(self, "seed")


@dataclass(frozen=True)
class Morph:
    """From GPT-2 to Llama 3, one part at a time: what is each worth? hornbook morph"""

    data: Annotated[Positional[str], arg(metavar="DATA")] = "python-docs"
    """A corpus by name, or a file, a folder, or - for standard input."""
    out: str | None = None
    """The folder; default runs/morph-DATA. The same command again carries on where it stopped."""
    minutes: float = 0.4
    """Wall-clock budget of each run: every stage with every seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """More of them make the intervals narrower; others may be added later."""
    stages: tuple[str, ...] = ()
    """Only these, such as gpt2 relu rotary, each compared with the one before it; default all."""
    tokenizer: str = "bpe"
    """bpe, word, char, bytes, or a folder or file to load one from."""
    vocab: int | None = None
    """Vocabulary size of the tokeniser; default 4,096 for bpe, otherwise all that occur."""
    column: str = "text"
    device: str | None = None
    """cpu, cuda or mps; default the best there is."""

    def __post_init__(self) -> None:
        require_words(self)
        above_zero(self, "minutes", "vocab")
        if not self.seeds or min(self.seeds) < 0:
            raise UserError("--seeds must be one or more numbers from 0 on, as in --seeds 0 1 2")
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError("--seeds has one twice: runs of the same seed are the same, and no repetition")


@dataclass(frozen=True)
class Sweep(Train):
    """The best settings for a budget: hornbook sweep llama-tiny --over lr=1e-4..1e-2 --over batch=8,16 --steps 300"""

    out: str | None = field(default=None, kw_only=True)
    """The folder; default runs/sweep-MODEL-DATA. The same command again carries on where it stopped, or joins in."""
    over: UseAppendAction[tuple[str, ...]] = ()
    """A setting of train and its values: lr=1e-4..1e-2, dim=64..256/64 (steps of 64) or batch=8,16,32; may be given
    several times."""
    trials: int = 30
    """Runs in all; the first one has the defaults."""
    prune: Literal["median", "halving", "none"] = "median"
    """End a run early that is worse than the median of the others at that point, or than the best third (halving)."""
    workers: int = 1
    """Processes that try settings side by side, each with its share of the cores, or with a GPU of its own."""
    engine: Literal["processes", "ray"] = "processes"
    """Where they run: on this machine, or on a Ray cluster, all of whose machines see --out."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        if not self.model:
            raise UserError("sweep needs a model, as in hornbook sweep llama-tiny --over lr=1e-4..1e-2")
        for given, name in ((self.like, "--like"), (self.find_lr, "--find-lr")):
            if given:
                raise UserError(f"{name} is for train: leave it out")
        super().__post_init__()
        above_zero(self, "trials", "workers")
