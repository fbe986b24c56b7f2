"""What settings may be: numbers within their bounds, counts of tokens, sizes in bytes, pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hornbook.errors import UserError, unknown


def require(settings: Any, names: tuple[str, ...], holds: Callable[[Any], bool], words: str) -> None:
    """A UserError for the first of the named numbers that is given and does not hold; NaN never does."""
    for name in names:
        if (value := getattr(settings, name)) is not None and not holds(value):
            raise UserError(f"--{name.replace('_', '-')} is {value}: it must be {words}")


def require_words(settings: Any) -> None:
    """A UserError for the first field that holds a word that it may not, or a text where it takes several values."""
    for name, hint in get_type_hints(type(settings)).items():
        words = words_in(hint)
        value = getattr(settings, name)
        if isinstance(value, str) and tuple in (get_origin(hint), *map(get_origin, get_args(hint))):
            raise UserError(f"{name} takes several values: write {name}=({value!r},)")
        for given in value if isinstance(value, tuple) else (value,):
            if words and isinstance(given, str) and given not in words:
                raise unknown(f"--{name.replace('_', '-')}", given, words)


def words_in(hint: Any) -> tuple[str, ...]:
    """The words of a Literal, wherever it stands in a type; none where any text is possible."""
    if hint is str:
        return ()
    if get_origin(hint) is Literal:
        return tuple(word for word in get_args(hint) if isinstance(word, str))
    inner = get_args(hint)
    return () if str in inner else tuple(word for part in inner for word in words_in(part))


def above_zero(settings: Any, *names: str) -> None:
    """A UserError for the first of the named numbers that is given and is not above 0."""
    require(settings, names, lambda x: x > 0, "above 0")


def zero_or_more(settings: Any, *names: str) -> None:
    """A UserError for the first of the named numbers that is given and is not 0 or more."""
    require(settings, names, lambda x: x >= 0, "0 or more")


def counted(option: str, text: str) -> int:
    """'10B', '300M', '1.5T', '15e12' or '20,000' -> the number. UserError for what is none, or is below 1."""
    units = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
    plain = text.strip().replace(",", "").replace("_", "").lower()
    unit = plain[-1:] if plain[-1:] in units else ""
    try:
        number = float(plain.removesuffix(unit)) * units[unit]
    except ValueError:
        number = math.nan
    if not 1 <= number < 1e18:
        raise UserError(f"{option} {text}: it must be a number of tokens, such as 10B, 300M or 15e12")
    return round(number)


def byte_count(option: str, text: str) -> int:
    """'64MB', '1.5 GiB' or '300000' -> bytes. UserError for what is none, or is below 1."""
    number = text.strip().lower().removesuffix("b")
    binary = number.endswith("i")
    power = "kmgt".find(number.removesuffix("i")[-1:] or " ") + 1
    try:
        size = float(number.removesuffix("i")[: -1 if power else None].replace(",", "").replace("_", ""))
    except ValueError:
        size = math.nan
    size *= (1024 if binary else 1000) ** power
    if not 1 <= size < 2**60 or (binary and not power):
        raise UserError(f"{option} {text}: it must be a size, such as 64MB, 1.5GB or 300000 (bytes)")
    return round(size)


def check_pairs(pairs: tuple[str, ...]) -> None:
    """A UserError for the first that is no pair."""
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise UserError(f"{pair!r} must be NAME=VALUE, as in --columns article=body")
