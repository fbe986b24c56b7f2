"""How the next token is drawn, and the commands in which a model speaks: `generate` and `chat`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from hornbook.config.checks import above_zero, require, require_words, zero_or_more
from hornbook.errors import UserError

LARGE = 1e30
"""The most that may be added to a logit: sums stay numbers in float32."""


DRAWING = ("top_k", "top_p", "min_p", "typical_p", "seed")
"""Settings that do nothing where the likeliest is taken."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn from a model's logits. Applied in the order of these fields."""

    logit_bias: dict[int, float] = field(default_factory=dict)
    """Added to the logits of tokens, by id, as in --logit-bias 198 -100."""
    repetition_penalty: float = 1.0
    """Above 1: logits of tokens of the prompt and of the new text are divided by it, negative ones multiplied."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit for each time that it stands in the new text."""
    presence_penalty: float = 0.0
    """Subtracted from a token's logit where it stands in the new text at all."""
    no_repeat_ngram: int = 0
    """No run of so many tokens may come twice; 0 allows all."""
    temperature: float = 1.0
    """Below 1 sharper, above 1 flatter; 0 always takes the likeliest token."""
    top_k: int = 0
    """Draw from the k likeliest tokens only; 0 for all."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that together have this probability."""
    min_p: float = 0.0
    """Draw from tokens with at least this share of the likeliest one's probability."""
    typical_p: float = 1.0
    """Draw from the tokens of most nearly expected surprise that together have this probability."""
    seed: int = 0

    def __post_init__(self) -> None:
        zero_or_more(self, "temperature", "top_k", "no_repeat_ngram", "seed")
        require(self, ("top_p", "typical_p"), lambda x: 0 < x <= 1, "above 0 and at most 1")
        require(self, ("min_p",), lambda x: 0 <= x <= 1, "between 0 and 1")
        require(self, ("repetition_penalty",), lambda x: 0.001 <= x <= 1000, "between 0.001 and 1,000")
        require(self, ("frequency_penalty", "presence_penalty"), lambda x: abs(x) <= LARGE, "between -1e30 and 1e30")
        require(self, ("temperature",), math.isfinite, "a finite number")
        for token, value in self.logit_bias.items():
            if not abs(value) <= LARGE:
                raise UserError(f"--logit-bias of token {token} is {value}: it must be between -1e30 and 1e30")


@dataclass(frozen=True, kw_only=True)
class Speaking(Sampling):
    """What every command that lets a model speak has beside: how the model is loaded, and made fast."""

    run: Annotated[Positional[str], arg(metavar="RUN")] = field(kw_only=False)
    """A run folder, or anything else that can be loaded."""
    draft: str | None = None
    """Guess ahead, for speed: lookup (what the text repeats), or a smaller model of the same tokeniser."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format that the weights are loaded in; bfloat16 is half the memory, and twice as fast."""
    bits: Literal[8, 4] | None = None
    """Quantise the weights while they are loaded."""
    device: str | None = None
    """cpu, cuda or mps; default the best there is."""


@dataclass(frozen=True)
class Generate(Speaking):
    """Let a model speak: hornbook generate runs/x "Once upon a time" """

    prompt: Annotated[Positional[str], arg(metavar="PROMPT")] = "-"
    """What the text begins with; - reads standard input."""
    chat: bool = False
    """The prompt is a user's message: put it into the model's own chat template."""
    tokens: int = 100
    """New tokens at most."""
    stop: UseAppendAction[tuple[str, ...]] = ()
    """Text at which it ends, itself not shown; may be given several times."""
    samples: int = 1
    """Answers to the same prompt; of several each is numbered."""
    beams: int = 1
    """Above 1: beam search, which carries so many texts along and gives out the likeliest ones it finds."""
    length_penalty: float = 1.0
    """Beams: a text's score is its log-probability divided by its length to this power."""
    beam_groups: int = 1
    """Beams: groups that search for different texts."""
    diversity: float = 0.0
    """Beams: what a token costs a group, in nats, for each beam of an earlier group that took it at the same step."""
    beam_sampling: bool = False
    """Beams: draw them, by temperature, top-k and so on, instead of taking the likeliest."""
    file: str | None = None
    """Prompts instead of PROMPT: a line each, or rows of .jsonl, .csv or .parquet. Needs --out."""
    out: str | None = None
    """Where the answers to --file go: a .jsonl file, a line each. The same command again carries on in it."""
    column: str = "prompt"
    """The column that holds the prompts, in .jsonl, .csv and .parquet files."""
    rows: int = 16
    """Answers from --file that are written at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_words(self)
        above_zero(self, "tokens", "samples", "rows", "beams", "beam_groups")
        require(self, ("beams",), lambda x: x <= 1000, "1,000 at most")
        if self.file and self.prompt != "-":
            raise UserError("give a prompt or --file, not both")
        if self.beams > 1 and (self.file or self.draft or self.stop):
            raise UserError("--beams goes with neither --file, --draft nor --stop")
        if self.beams > 1 and (self.samples > self.beams or self.beams % self.beam_groups):
            raise UserError(f"--beams {self.beams}: --samples must be at most as many, --beam-groups divide them")
        of_beams = self.beam_sampling, self.beam_groups > 1, self.diversity, self.length_penalty != 1
        if self.beams == 1 and any(of_beams):
            raise UserError("--beam-sampling, --beam-groups, --diversity and --length-penalty need --beams above 1")
        idle = [name for name in DRAWING if getattr(self, name) != getattr(Sampling, name)]
        idle += ["temperature"] if self.temperature not in (0, 1) else []
        if self.beams > 1 and not self.beam_sampling and idle:
            name = idle[0].replace("_", "-")
            raise UserError(
                f"--{name} is about drawing, and --beams takes the likeliest: add --beam-sampling to draw them"
            )
        if bool(self.file) != bool(self.out):
            raise UserError("--file names the prompts and --out the file for the answers: one needs the other")
        if "" in self.stop:
            raise UserError("--stop is empty: give the text at which generation is to end")


@dataclass(frozen=True)
class Chat(Speaking):
    """Talk with a model that was taught to converse: hornbook chat runs/x"""

    system: str = ""
    """How the model is to behave; what its template says by itself where nothing is given."""
    tokens: int = 500
    """New tokens of an answer at most."""
    temperature: float = field(default=0.7, kw_only=True)
    top_p: float = field(default=0.9, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        above_zero(self, "tokens")
