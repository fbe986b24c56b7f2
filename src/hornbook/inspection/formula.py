"""The number of parameters as a formula: V D + T D + L (12 D^2 + 13 D) + 2 D, and the same with a model's numbers.

No family states its formula. It is read off the shapes of a second model of the same config, built without memory in
sizes so odd that each dimension tells which size it is; so it holds for any family, a new one too.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from hornbook.config import ModelConfig, TransformerConfig
from hornbook.formats.filling import build_empty
from hornbook.inspection.configs import stand_in
from hornbook.inspection.tree import Part, parts_of
from hornbook.layers.model import LanguageModel

LETTERS = {
    "vocab": ("V", "tokens in the vocabulary"),
    "context": ("T", "positions"),
    "layers": ("L", "layers"),
    "dim": ("D", "the width"),
    "embedding_dim": ("E", "the width of the token embeddings"),
    "heads": ("H", "heads"),
    "kv_heads": ("G", "heads of keys and values"),
    "head_dim": ("K", "the width of a head"),
    "mlp": ("M", "the inner width of the MLP"),
}
"""Field of a config -> its letter in a formula, and what it counts."""

ODD = {
    "vocab": 1_000_003,
    "context": 500_009,
    "dim": 77 * 1300,
    "embedding_dim": 30_011,
    "heads": 77,
    "kv_heads": 7,
    "head_dim": 1_018,
    "mlp": 300_007,
    "entries": 2_000_003,
}
"""Sizes none of which is, or lies near, a small multiple of another; heads can share them and be halved."""
SMALL = 8
"""A dimension may be so many times a size (an LSTM has four gates), or that much more (OPT has spare positions)."""

Monomial = tuple[str, ...]
"""Letters that are multiplied, D twice for D^2; () is the number 1."""
Poly = tuple[tuple[Monomial, int], ...]
"""Monomials, and how often each is taken."""
Term = tuple[str, Poly]
"""What a sum is taken by (L, a number, or nothing), and the sum."""


@dataclass(frozen=True)
class Formula:
    """parameters = `letters` = `numbers` = `sums` = `value`."""

    letters: str
    numbers: str
    sums: str
    value: int
    legend: dict[str, tuple[int, str]]
    """The letters that occur -> their values, and what they count."""


def formula_of(model: LanguageModel, parts: list[Part]) -> Formula:
    """The formula of a model with these rows; its value is their number of parameters."""
    values, meanings = letters_of(model.config)
    terms = terms_of(model.config, parts, values)
    used = {letter for times, poly in terms for monomial in [(times,), *dict(poly)] for letter in monomial}
    return Formula(
        letters=" + ".join(written(term, n, {}, " ") for term, n in terms.items()),
        numbers=" + ".join(written(term, n, values, " x ") for term, n in terms.items()),
        sums=" + ".join(f"{n * worth(term, values):,}" for term, n in terms.items()),
        value=sum(n * worth(term, values) for term, n in terms.items()),
        legend={letter: (value, meanings[letter]) for letter, value in values.items() if letter in used},
    )


def letters_of(config: ModelConfig) -> tuple[dict[str, int], dict[str, str]]:
    """The values and the meanings of all letters that a config gives a value."""
    c = config.resolved()
    known = {letter: (getattr(c, name), told) for name, (letter, told) in LETTERS.items() if hasattr(c, name)}
    entries = getattr(c, "entries", ())
    for k in range(2, getattr(c, "order", 0) + 1):
        known[f"N{k}"] = (entries[k - 1] if entries else 0, f"n-grams of {k} tokens that were counted")
    return {key: value for key, (value, _) in known.items()}, {key: told for key, (_, told) in known.items()}


def terms_of(config: ModelConfig, parts: list[Part], values: dict[str, int]) -> Counter[Term]:
    """A term for each outermost part, and how many have the same."""
    odd = stand_in(config, ODD)
    atoms, terms = atoms_of(odd), Counter[Term]()
    pairs = list(zip(parts, parts_of(build_empty(odd), 1), strict=True))
    for outer in (part for part in parts if not part.depth):
        poly: Counter[Monomial] = Counter()
        for part, other in pairs:
            if other.kind and other.parameters and f"{part.path}.".startswith(f"{outer.path}."):
                for monomial, n in tensors(part, other, atoms, values).items():
                    poly[monomial] += n * part.copies // outer.copies
        if poly:
            layers = "." in outer.path  # an entry of a list
            times = "L" if layers and outer.copies == values.get("L") else str(outer.copies) if layers else ""
            terms[times, tuple(sorted(poly.items(), key=rank))] += 1
    return terms


def atoms_of(odd: ModelConfig) -> dict[int, Monomial]:
    """What a dimension can be -> its letters."""
    values, _ = letters_of(odd)
    atoms: dict[Monomial, int] = {(letter,): values[letter] for letter in values if letter not in "LHGKM"}
    if isinstance(odd, TransformerConfig):
        atoms |= {("H", "K"): values["H"] * values["K"], ("G", "K"): values["G"] * values["K"], ("K",): values["K"]}
        atoms |= {("M",): values["M"]} if values["M"] != 4 * values["D"] else {}
    return {value: letters for letters, value in reversed(atoms.items())}  # of equal ones the first stays


def tensors(part: Part, other: Part, atoms: dict[int, Monomial], values: dict[str, int]) -> Counter[Monomial]:
    """The numbers in the tensors of a part, which are those of `other` in its odd sizes."""
    found: Counter[Monomial] = Counter()
    for shape, odd_shape in zip(part.shapes, other.shapes, strict=True):
        product: dict[Monomial, int] = {(): 1}
        for size, odd_size in zip(shape, odd_shape, strict=True):
            by = dimension(odd_size, atoms)
            if size != sum(n * math.prod(values[letter] for letter in letters) for letters, n in by.items()):
                by = {(): size}  # of no size that has a letter
            product = {in_order(a + b): n * m for a, n in product.items() for b, m in by.items()}
        found.update(product)
    return found


def dimension(size: int, atoms: dict[int, Monomial]) -> dict[Monomial, int]:
    """A dimension of odd size, in letters: 4 D, T + 2, or a number."""
    whole = [value for value in atoms if size % value == 0 and size // value <= SMALL]
    if whole:
        return {atoms[max(whole)]: size // max(whole)}
    near = [value for value in atoms if 0 < size - value <= SMALL]
    return {atoms[near[0]]: 1, (): size - near[0]} if near else {(): size}


def in_order(letters: Monomial) -> Monomial:
    """V before T before D, and so on."""
    return tuple(sorted(letters, key=place))


def rank(entry: tuple[Monomial, int]) -> tuple[int, list[int]]:
    """Squares first (a width of heads is one number), then D, then numbers."""
    return -len([letter for letter in entry[0] if letter not in "HG"]), [place(letter) for letter in entry[0]]


def place(letter: str) -> int:
    """Where a letter stands among others."""
    return "VTLDEHGKM".find(letter)


def worth(term: Term, values: dict[str, int]) -> int:
    """The number that a term stands for."""
    times, poly = term
    total = sum(n * math.prod(values[letter] for letter in letters) for letters, n in poly)
    return total * (values[times] if times in values else int(times or 1))


def written(term: Term, n: int, values: dict[str, int], by: str) -> str:
    """A term that occurs n times, with letters or, where `values` has them, with numbers."""
    times, poly = term
    if len(poly) == 1 and not times:
        n, poly = 1, ((poly[0][0], n * poly[0][1]),)
    body = " + ".join(product(letters, count, values, by) for letters, count in poly)
    factors = [str(n)] if n > 1 else []
    factors += [f"{values[times]:,}" if times in values else times] if times else []
    return by.join([*factors, f"({body})"]) if factors else body


def product(letters: Monomial, count: int, values: dict[str, int], by: str) -> str:
    """count x letters, with powers: 12 D^2."""
    factors = [f"{count:,}"] if count > 1 or not letters else []
    for letter, power in Counter(letters).items():
        factors.append((f"{values[letter]:,}" if letter in values else letter) + (f"^{power}" if power > 1 else ""))
    return by.join(factors)
