"""What a sweep tries: `lr=1e-4..1e-2`, `dim=64..256/64`, `batch=8,16,32`, read and checked before any work."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from hornbook.config import Sweep, Train
from hornbook.errors import UserError, unknown
from hornbook.training.origin import origin
from hornbook.training.prepare import changed
from hornbook.training.pretrain import check_alone, resolve

FIXED = ("out", "like", "find_lr", "track", "device", "snapshots")
"""Settings of train that are the same in all trials."""
TEXTS = ("data", "column")
"""Those that decide what is learnt and scored."""
TRIED = 200
"""Trials that a value is tried in beforehand: in one of them it must be possible."""
LOGARITHMIC = 10
"""Floats whose ends are this many times apart are drawn on a logarithmic scale."""
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})(?:/({NUMBER}))?")
GRAMMAR = "lr=1e-4..1e-2, dim=64..256/64 or batch=8,16,32"


class Suggests(Protocol):
    """What draws values: a trial of Optuna."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...


@dataclass(frozen=True)
class Dimension:
    """One setting and its values: some choices, or all numbers from `low` to `high`, whole ones in steps."""

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    step: int = 0
    """Of whole numbers; 0 for others."""
    log: bool = False

    def draw(self, trial: Suggests) -> Any:
        """The value that `trial` shall have."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.step:
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=self.step)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Choices, or first and last."""
        return self.choices or (self.low, self.high)

    @property
    def some(self) -> Sequence[Any]:
        """Choices, all numbers of a range in steps, or the ends of another one."""
        return range(int(self.low), int(self.high) + 1, self.step) if self.step else self.ends


def space(settings: Sweep) -> list[Dimension]:
    """The dimensions of a sweep, in the order given. UserError for what cannot be read, is unknown, or is refused
    whatever else a trial has."""
    if not settings.over:
        raise UserError(f"a sweep needs something to vary: --over {GRAMMAR}")
    found = [dimension(spec) for spec in settings.over]
    for name in (names := [one.name for one in found]):
        if names.count(name) > 1:
            raise UserError(f"--over names {name} twice: give all its values at once, as in {GRAMMAR}")
    if "model" not in names and (place := origin(settings.model)) is not None:
        settings = dataclasses.replace(settings, model=str(place))  # a name of the Hub's is looked up once
    check(train_settings(settings, {}))
    for one in found:
        for value in one.ends:
            require_possible(settings, one.name, value, [other for other in found if other is not one])
    return found


def require_possible(settings: Sweep, name: str, value: Any, others: list[Dimension]) -> None:
    """UserError for a value that is refused whatever the `others` are. Of too many trials to try all it is only where
    some drawn by lot are refused in the same words. Between the ends of a range a trial may fail all the same, as it is
    then told."""
    values = [other.some for other in others]
    count, lot = math.prod(map(len, values)), random.Random(0)
    tried = itertools.product(*values) if count <= TRIED else ([lot.choice(v) for v in values] for _ in range(TRIED))
    refused: dict[str, UserError] = {}
    for chosen in tried:
        try:
            check(train_settings(settings, {name: value} | dict(zip((o.name for o in others), chosen, strict=True))))
        except UserError as error:
            refused.setdefault(str(error), error)
        else:
            return
    if count <= TRIED or len(refused) == 1:
        raise next(iter(refused.values()))


def check(settings: Train) -> None:
    """UserErrors for what train refuses before it reads any text."""
    settings = resolve(settings)
    check_alone(settings)
    if origin(settings.model) is None:
        changed(settings)


def train_settings(settings: Sweep, values: Mapping[str, Any], out: str | None = None) -> Train:
    """What trains one trial. UserError for values that train refuses."""
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(Train)}
    return Train(**given | dict(values) | {"out": out})


def dimension(spec: str) -> Dimension:
    """One --over, read."""
    word, equals, text = spec.partition("=")
    name = word.strip().removeprefix("--").replace("-", "_")
    if not (equals and name and text.strip()):
        raise UserError(f"--over {spec!r} cannot be read: it must be like {GRAMMAR}")
    hints = {key: hint for key, hint in typing.get_type_hints(Train).items() if key not in FIXED}
    if name not in hints:
        raise unknown("setting to sweep over", name, [key for key, hint in hints.items() if kinds(hint)])
    if name in TEXTS:
        raise UserError(f"--over {spec}: scores on different texts cannot be compared: keep to one --data")
    possible = kinds(hints[name])
    if not possible:
        raise UserError(f"--over {spec}: {name} takes several values at once, and cannot be swept over")
    if found := RANGE.fullmatch(text.strip()):
        return span(spec, name, found, possible)
    if ".." in text and str not in possible:
        raise UserError(f"--over {spec!r} cannot be read: it must be like {GRAMMAR}")
    choices = tuple(dict.fromkeys(converted(spec, name, part.strip(), possible) for part in text.split(",")))
    if len(choices) < 2:
        raise UserError(f"--over {spec}: one value is no choice; to fix it, --{name.replace('_', '-')} {text}")
    return Dimension(name, choices)


def span(spec: str, name: str, found: re.Match[str], possible: tuple[Any, ...]) -> Dimension:
    """All numbers between two, from the parts of `low..high/step`."""
    first, last, step = found.groups()
    whole = int in possible and float not in possible
    if not whole and float not in possible:
        raise UserError(f"--over {spec}: {name} takes no numbers: name its values, as in {name}=a,b")
    low, high = (converted(spec, name, part, (int if whole else float,)) for part in (first, last))
    if not low < high:
        raise UserError(f"--over {spec}: the second number must be above the first")
    if not whole:
        if step:
            raise UserError(f"--over {spec}: steps are for whole numbers: leave out /{step}, or name the values")
        return Dimension(name, low=low, high=high, log=low > 0 and high / low >= LOGARITHMIC)
    size = converted(spec, name, step, (int,)) if step else 1
    if not 1 <= size <= high - low:
        raise UserError(f"--over {spec}: a step must be at least 1 and at most {high - low}")
    return Dimension(name, low=low, high=low + (high - low) // size * size, step=size)


def kinds(hint: Any) -> tuple[Any, ...]:
    """What a setting may be: int, float, bool, str, and names; empty for what takes several values."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(kind for part in typing.get_args(hint) for kind in kinds(part))
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    return (hint,) if hint in (int, float, bool, str) else ()


def converted(spec: str, name: str, text: str, possible: tuple[Any, ...]) -> Any:
    """A value from its spelling. UserError where it is none."""
    if text in possible:
        return text
    if bool in possible and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        if kind in possible:
            try:
                return kind(text)
            except ValueError:
                continue
    if str in possible and text:
        return text
    words = {int: "a whole number", float: "a number", bool: "true or false"}
    raise UserError(f"--over {spec}: {name} is {text!r}: it must be {' or '.join(words.get(k, k) for k in possible)}")
