"""How models work, and how they go wrong: `inspect` and `mistakes`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from hornbook.config.checks import above_zero, require, require_words
from hornbook.errors import UserError

Picture = Literal[
    "attention",
    "heads",
    "lens",
    "surprise",
    "norms",
    "positions",
    "neighbours",
    "weights",
    "activations",
    "look-back",
    "reach",
    "roughness",
    "time-lapse",
]
"""What `pictures/album.py` can draw."""


@dataclass(frozen=True)
class Inspect:
    """What a model is made of, without memory for its weights: hornbook inspect opt-66b --layers

    With a text, every step from its tokens to what comes next: hornbook inspect runs/x "The quick brown fox"
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A named size, or a run or Hugging Face folder, of which only config.json is read; with a text, whatever can be
    loaded."""
    text: Annotated[Positional[str | None], arg(metavar="TEXT")] = None
    """Walk through a pass over this text: each step with its formula, shape, mean, deviation, norm, first values."""
    all: bool = False
    """With a text: every layer's steps, where otherwise equal layers are folded."""
    layer: int | None = None
    """With a text: the steps of this layer only, counted from 0."""
    bits: int | None = None
    """With a text: the matrices in 8 or 4 bits, as they are read."""
    layers: bool = False
    """The module tree with shapes, parameters, bytes and FLOPs; the default where nothing else is asked for."""
    names: bool = False
    """The reference's names and shapes of all tensors beside ours."""
    vocab: int | None = None
    """Vocabulary of a named size; default its own, or 4,096 for one that takes its tokeniser's."""
    context: int | None = None
    """Tokens in a row, for the FLOPs of attention; default the model's."""
    diagram: str | None = None
    """Draw the model to this path, as x.svg or, for Mermaid, as x.mmd: shapes on every arrow, equal layers folded."""
    compare_word: str | None = None
    """With a text that has this word: how alike its hidden states are, layer by layer, to those in another sentence."""
    beside: str | None = None
    """With --compare-word: the other sentence."""
    pictures: str | None = None
    """Draw all pictures that there are of a run into this folder; with a text, of what goes on inside over it too."""
    picture: UseAppendAction[tuple[Picture, ...]] = ()
    """With --pictures: this one only; may be given several times."""
    format: Literal["png", "svg", "both"] | None = None
    """With --pictures: the kind of files, default png; what moves is a gif."""
    against: UseAppendAction[tuple[str, ...]] = ()
    """With --pictures: another run, beside which the picture reach sets this one; may be given several times."""
    json: bool = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        require_words(self)
        above_zero(self, "vocab", "context")
        require(self, ("layer",), lambda x: x >= 0, "0 or above")
        self.check_words()
        self.check_pictures()
        if self.diagram is not None and not self.diagram.endswith((".svg", ".mmd")):
            raise UserError(f"--diagram {self.diagram}: a diagram is written to a path that ends in .svg or .mmd")
        walking = [f"--{name}" for name in ("all", "layer", "bits") if getattr(self, name) not in (None, False)]
        if walking and self.text is None and self.pictures is None:
            raise UserError(f'{walking[0]} is for the walk through a text: hornbook inspect {self.model} "The fox"')
        parts = ("layers", "names", "vocab", "context", "diagram")
        made = [f"--{name}" for name in parts if getattr(self, name) not in (None, False)]
        if made and self.text is not None:
            raise UserError(f"{made[0]} tells what a model is made of: leave it out, or leave out the text")

    def check_words(self) -> None:
        """UserError where a word to be compared lacks a sentence, or is asked for beside a walk."""
        if (self.compare_word, self.beside) == (None, None):
            return
        if None in (self.text, self.compare_word, self.beside):
            example = f'hornbook inspect {self.model} "the bank of it" --compare-word bank --beside "a bank lends"'
            raise UserError(f"a word is compared in two sentences: {example}")
        if self.all or self.layer is not None:
            raise UserError("--all and --layer are for the walk: --compare-word shows every layer")

    def check_pictures(self) -> None:
        """UserError for what is about pictures without them, and for what they do not go with."""
        apart = ("layers", "names", "vocab", "context", "diagram", "compare_word")
        given = [f"--{n.replace('_', '-')}" for n in apart if getattr(self, n) not in (None, False)]
        if self.pictures is not None and given:
            raise UserError(f"{given[0]} and --pictures are two commands: leave out one")
        about = [f"--{name}" for name in ("picture", "format", "against") if getattr(self, name)]
        if about and self.pictures is None:
            raise UserError(f"{about[0]} is for pictures: hornbook inspect {self.model} --pictures FOLDER {about[0]}")


@dataclass(frozen=True)
class Mistakes:
    """The museum of mistakes: what tutorials get wrong, planted and measured: hornbook mistakes no-mask"""

    name: Annotated[Positional[str], arg(metavar="NAME")] = ""
    """Which one to tell of and to measure; without one, they are listed."""
    all: bool = False
    """Measure every one: about two minutes on two cores."""
    out: str | None = None
    """With --all: a page to write, such as museum.html."""
    steps: int = 200
    """Steps for which the tiny models of those that need any are trained."""
    json: bool = False
    """Print what was measured as one object a line."""

    def __post_init__(self) -> None:
        require(self, ("steps",), lambda x: x >= 10, "10 or more")
        if self.all and self.name:
            raise UserError(f"--all measures every mistake: leave out '{self.name}', or --all")
        if self.out and not self.all:
            raise UserError("--out writes a page of all mistakes: it goes with --all")
