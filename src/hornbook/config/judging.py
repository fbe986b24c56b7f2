"""What is said of models and runs that are there: `doctor`, `report` and `compare`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from hornbook.config.checks import require_words
from hornbook.errors import UserError


@dataclass(frozen=True)
class Doctor:
    """Does a model do what a language model must? hornbook doctor runs/x"""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, or anything else that can be loaded."""
    foreign: bool = False
    """Judge a Hugging Face folder as transformers runs it, instead of as we do. Code in the folder is never run."""
    compile: bool = False
    """Compile the model too, and compare: half a minute or more."""
    device: str | None = None
    """cpu, cuda or mps; default cpu, where float32 is float32."""
    json: bool = False
    """Print one JSON object instead of lines."""


@dataclass(frozen=True)
class Report:
    """Runs as a page with curves, samples and settings: hornbook report runs/x runs/y"""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    """Run folders, finished or not; a ladder's folder, or any that holds runs, stands for all its runs."""
    out: str | None = None
    """The page to write; default report.html in the run, or runs.html in the one folder that was named, else here."""

    def __post_init__(self) -> None:
        require_words(self)
        if not self.runs:
            raise UserError("report needs a run: hornbook report runs/x")


@dataclass(frozen=True)
class Compare:
    """Runs side by side in the terminal: hornbook compare runs/x runs/y --text "The quick brown fox" """

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    """Run folders, or model folders, two at least; a ladder's folder, or any that holds runs, stands for them all."""
    text: str | None = None
    """Also how likely each model holds this text, and what it would go on with."""
    device: str | None = None
    """With --text: cpu, cuda or mps; default the best there is."""
    json: bool = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        require_words(self)
        if not self.runs:
            raise UserError("compare needs two runs: hornbook compare runs/x runs/y")
