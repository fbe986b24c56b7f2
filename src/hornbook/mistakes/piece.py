"""What a piece of the museum is: a mistake that can be planted, measured, and found by the doctor."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hornbook.doctor.certificate import CHECKS, attempt
from hornbook.doctor.finding import Finding
from hornbook.doctor.subject import Subject
from hornbook.errors import UserError
from hornbook.layers.model import LanguageModel
from hornbook.mistakes.school import fresh

MISTAKEN, HONEST, ASIDE = "mistaken", "honest", "aside"


class Figure(NamedTuple):
    """One number of a comparison."""

    what: str
    value: float
    kind: str = ASIDE
    """MISTAKEN (what the mistake makes one see), HONEST (what is so), or ASIDE."""

    @property
    def text(self) -> str:
        """The number for people: shares in per cent, counts whole, others with four figures."""
        if self.what.startswith("share"):
            return f"{100 * self.value:.1f} %"
        whole = self.value == int(self.value) and abs(self.value) < 1e15
        return f"{self.value:,.0f}" if whole or abs(self.value) >= 1e4 else f"{self.value:.4g}"


class Measured(NamedTuple):
    """The mistaken figure beside the honest one, and whether the difference is the one that the piece tells of."""

    figures: tuple[Figure, ...]
    holds: bool


@dataclass(frozen=True)
class Piece:
    """A well-known mistake. No model knows of it: `plant` changes them, or the code around them, from outside."""

    name: str
    title: str
    what: str
    """What it is, in plain words."""
    seen: str
    """Where one meets it."""
    looks: str
    """What one would observe."""
    check: str
    """The check of `hornbook doctor` that finds it."""
    plant: Callable[[LanguageModel], AbstractContextManager[Any]]
    """Within it, the model and all that is done with it has the mistake."""
    measure: Callable[[int], Measured]
    """Steps of training (of those pieces that train) -> what it costs."""
    patient: Callable[[], LanguageModel] = fresh
    """A model on which the doctor finds it."""
    fits: Callable[[Any], bool] = lambda model: True
    """Whether a model has what the mistake is made in."""
    needs: str = ""
    """What that is, in words."""

    def planted(self, model: LanguageModel) -> AbstractContextManager[Any]:
        """`plant`, or a UserError where there is nothing in the model to plant it in."""
        if not self.fits(model):
            raise UserError(f"'{self.name}' needs {self.needs}, which this model of '{model.config.family}' lacks")
        return self.plant(model)

    def finding(self, planted: bool, scratch: Path | None = None) -> Finding:
        """What the check says of the patient, with the mistake or without."""
        model = self.patient()
        with contextlib.ExitStack() as stack:
            if planted:
                stack.enter_context(self.plant(model))
            folder = scratch or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hornbook-museum-")))
            return attempt(CHECKS[self.check][0], Subject(model, model.tokenizer, True, folder))


@contextlib.contextmanager
def swapped(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Within it every (thing, name, value) holds: the attribute of that name has that value."""
    with contextlib.ExitStack() as stack:
        for thing, name, value in changes:
            own = name in vars(thing) or name in vars(thing).get("_modules", {})
            if own:
                stack.callback(setattr, thing, name, vars(thing).get(name, getattr(thing, name)))
            else:
                stack.callback(delattr, thing, name)
            setattr(thing, name, value)
        yield
